package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

type tunnelItem struct {
	ID                     uint64
	Route                  slipswitch.Key
	Version                uint64
	Client, Peer, Upstream string
	Opened                 time.Time
	slipswitch.Traffic
}

type tunnelPage struct {
	Tunnels []tunnelItem
	Next    string
}

// A gateway is a server whose handler has a proxy, which listens, too.
type gateway struct {
	*server
	proxy  *slipswitch.Proxy
	public string // URL
	echo   string // URL of an upstream that sends each message back
}

func startGateway(t *testing.T, h *admin.Handler) *gateway {
	t.Helper()
	h.Router = new(slipswitch.Router)
	h.Proxy = &slipswitch.Proxy{Router: h.Router}
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprint(w, r.URL.EscapedPath())
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, message, err := conn.Read(context.Background())
			if err != nil || conn.Write(context.Background(), kind, message) != nil {
				return
			}
		}
	}))
	t.Cleanup(echo.Close)
	public := httptest.NewServer(h.Proxy)
	t.Cleanup(public.Close)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Proxy.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return &gateway{serve(t, h), h.Proxy, public.URL, echo.URL}
}

// dial opens a tunnel, and waits until it is listed: the client has its 101 a
// moment before.
func (g *gateway) dial(path string) *websocket.Conn {
	g.t.Helper()
	before := len(slices.Collect(g.proxy.Tunnels()))
	conn, response, err := websocket.Dial(g.t.Context(), g.public+path, nil)
	if err != nil {
		g.t.Fatalf("dial %s: %v %v", path, response, err)
	}
	g.t.Cleanup(func() { conn.CloseNow() })
	until(g.t, path+" is listed", func() bool { return len(slices.Collect(g.proxy.Tunnels())) > before })
	return conn
}

// talk sends a message through a tunnel and waits for it to come back.
func talk(t *testing.T, conn *websocket.Conn, message string) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	_, got, err := conn.Read(t.Context())
	if err != nil || string(got) != message {
		t.Fatalf("got %q, %v; want %q", got, err, message)
	}
}

func TestTunnels(t *testing.T) {
	g := startGateway(t, &admin.Handler{})
	put(t, g.router, "", slipswitch.Route{Path: "/a/1", Upstreams: slipswitch.To(g.echo)},
		slipswitch.Route{Path: "/a/2", Upstreams: slipswitch.To(g.echo)}, slipswitch.Route{Host: "127.0.0.1", Path: "/b", Upstreams: slipswitch.To(g.echo)})
	list := func(query string) tunnelPage {
		return decode[tunnelPage](t, g.want(200, "GET", "/v1/tunnels?"+query, ""))
	}
	if got := g.want(200, "GET", "/v1/tunnels", ""); !strings.Contains(got.body, `"tunnels":[]`) {
		t.Errorf("no tunnels: got %s", got.body)
	}
	begin := time.Now()
	first := g.dial("/a/1/x?token=secret")
	g.dial("/a/2")
	g.dial("/a/2")
	g.dial("/b")
	talk(t, first, "hello")
	all := list("")
	if len(all.Tunnels) != 4 || all.Next != "" {
		t.Fatalf("got %+v; want 4 tunnels", all)
	}
	one := all.Tunnels[0]
	if one.Route.Path != "/a/1" || one.Version != 1 || one.Client != "127.0.0.1" || one.Peer != "127.0.0.1" || one.Upstream != g.echo || one.Opened.Before(begin.Add(-time.Second)) ||
		one.ClientBytes < 5 || one.UpstreamBytes < 5 || one.LastData.Before(begin.Add(-time.Second)) {
		t.Errorf("got %+v", one)
	}
	address := strings.TrimPrefix(g.echo, "http://")
	for query, want := range map[string]string{
		"path=/a":             "/a/1 /a/2 /a/2",
		"path=/a/2/":          "/a/2 /a/2",
		"path=/a/":            "/a/1 /a/2 /a/2",
		"path=/":              "/a/1 /a/2 /a/2 /b",
		"path=/c":             "",
		"host=":               "/a/1 /a/2 /a/2",
		"host=127.0.0.1":      "/b",
		"upstream=" + g.echo:  "/a/1 /a/2 /a/2 /b",
		"upstream=" + address: "/a/1 /a/2 /a/2 /b",
		"upstream=1":          "",
		"client=127.0.0.1":    "/a/1 /a/2 /a/2 /b",
		"client=10.0.0.1":     "",
		"peer=127.0.0.1":      "/a/1 /a/2 /a/2 /b",
		"peer=10.0.0.1":       "",
	} {
		var got []string
		after := ""
		for {
			page := list(query + "&limit=1&after=" + after)
			for _, tunnel := range page.Tunnels {
				got = append(got, tunnel.Route.Path)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q; want %q", query, got, want)
		}
	}
	for _, query := range []string{"limit=0", "after=x", "after=-1", "path=x", "user=x", "host=a/b"} {
		g.want(400, "GET", "/v1/tunnels?"+query, "")
	}
	if item := decode[routeItem](t, g.want(200, "GET", "/v1/route?path=/a/2", "")); item.Tunnels != 2 {
		t.Errorf("/a/2 has %d tunnels; want 2", item.Tunnels)
	}
	without := serve(t, &admin.Handler{})
	if got := without.want(200, "GET", "/v1/tunnels", ""); !strings.Contains(got.body, `"tunnels":[]`) {
		t.Errorf("without a proxy: got %s", got.body)
	}
}

func TestSortedTunnels(t *testing.T) {
	g := startGateway(t, &admin.Handler{})
	put(t, g.router, "", slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(g.echo)}, slipswitch.Route{Path: "/b", Upstreams: slipswitch.To(g.echo)})
	a := g.dial("/a")
	b := g.dial("/b")
	talk(t, b, strings.Repeat("b", 1000))
	talk(t, a, "a")
	for query, want := range map[string]string{
		"sort=opened": "/a /b", "sort=-opened": "/b /a", "sort=bytes": "/a /b", "sort=-bytes": "/b /a",
		"sort=lastData": "/b /a", "sort=-lastActive": "/a /b", "sort=-bytes&limit=1": "/b", "sort=-bytes&path=/a": "/a", "id=2": "/b",
	} {
		var got []string
		page := decode[tunnelPage](t, g.want(200, "GET", "/v1/tunnels?"+query, ""))
		for _, tunnel := range page.Tunnels {
			got = append(got, tunnel.Route.Path)
		}
		if strings.Join(got, " ") != want || page.Next != "" {
			t.Errorf("%s: got %q, next %q; want %q", query, got, page.Next, want)
		}
	}
	for _, query := range []string{"sort=size", "sort=-", "sort=bytes&after=1", "id=0", "id="} {
		g.want(400, "GET", "/v1/tunnels?"+query, "")
	}
}

func TestCloseTunnels(t *testing.T) {
	g := startGateway(t, &admin.Handler{})
	put(t, g.router, "", slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(g.echo)}, slipswitch.Route{Path: "/b", Upstreams: slipswitch.To(g.echo)})
	a, b := g.dial("/a"), g.dial("/b")
	for _, query := range []string{"", "code=1001", "path=", "path=/a&code=1005", "path=/a&code=x", "path=/a&reason=" + strings.Repeat("a", 124),
		"path=/a&reason=%ff", "path=/a&window=5", "path=/a&window=-1s", "path=/a&all=1"} {
		g.want(400, "DELETE", "/v1/tunnels?"+query, "")
	}
	closed := func(conn *websocket.Conn, code websocket.StatusCode, reason string) {
		t.Helper()
		var frame websocket.CloseError
		if _, _, err := conn.Read(t.Context()); !errors.As(err, &frame) || frame.Code != code || frame.Reason != reason {
			t.Errorf("got %v; want it closed with %d %q", err, code, reason)
		}
	}
	if got := g.want(202, "DELETE", "/v1/tunnels?path=/a&code=4001&reason=moved+away", ""); got.body != "{\"closing\":1}\n" {
		t.Errorf("got %s", got.body)
	}
	closed(a, 4001, "moved away")
	talk(t, b, "still here")
	g.want(202, "DELETE", "/v1/tunnels?host=&window=10ms", "")
	closed(b, 1001, "drain")

	type closes struct {
		Closes []slipswitch.CloseReport
		Bursts []slipswitch.Burst
	}
	var list closes
	until(t, "two closes are listed", func() bool {
		list = decode[closes](t, g.want(200, "GET", "/v1/closes", ""))
		return len(list.Closes) >= 2
	})
	if len(list.Closes) != 2 || list.Closes[0].Why != slipswitch.WhyDrain || list.Closes[1].Why != slipswitch.WhyAdmin || list.Closes[1].State != "GP" {
		t.Errorf("got %+v; want b's, then a's", list.Closes)
	}
	for query, want := range map[string]int{"limit=1": 1, "path=/a": 1, "by=gateway": 2, "by=client": 0, "why=admin": 1, "client=10.0.0.1": 0, "peer=127.0.0.1": 2, "peer=10.0.0.1": 0, "upstream=" + g.echo: 2} {
		if got := decode[closes](t, g.want(200, "GET", "/v1/closes?"+query, "")); len(got.Closes) != want {
			t.Errorf("%s: got %d closes; want %d", query, len(got.Closes), want)
		}
	}
	g.want(400, "GET", "/v1/closes?who=x", "")
	without := serve(t, &admin.Handler{})
	if got := without.want(200, "GET", "/v1/closes", ""); got.body != "{\"closes\":[],\"bursts\":[]}\n" {
		t.Errorf("without a proxy: got %s", got.body)
	}
	without.want(202, "DELETE", "/v1/tunnels?path=/", "")
}
