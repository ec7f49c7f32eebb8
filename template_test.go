package slipswitch_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// One route for all services: the name is in the path. Here they are only two,
// and served by this process, which must be allowed.
func ExampleUpstream() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("%s for %s\n", r.URL.Path, r.Header.Get("X-Forwarded-Prefix"))
	}))
	defer service.Close()
	proxy := &slipswitch.Proxy{
		Router:            new(slipswitch.Router),
		TemplateAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, // better: the network of your workspaces
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			fmt.Print(address, ": ")
			return new(net.Dialer).DialContext(ctx, network, service.Listener.Addr().String())
		},
	}
	proxy.Router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{
		Path: "/service", StripPath: true,
		Upstreams: slipswitch.To("http://{1}.ide.svc.cluster.local.:8080"),
	}})
	server := httptest.NewServer(proxy)
	defer server.Close()
	for _, path := range []string{"/service/ada/editor", "/service/grace/", "/service/127/"} {
		response, err := http.Get(server.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			fmt.Println(response.Status)
		}
	}
	// Output:
	// ada.ide.svc.cluster.local.:8080: /editor for /service/ada
	// grace.ide.svc.cluster.local.:8080: / for /service/grace
	// 404 Not Found
}

// dialled returns a Proxy whose dials all go to one upstream, and the addresses
// that were dialled.
func dialled(u *upstream) (p *slipswitch.Proxy, addresses func() []string) {
	var mu sync.Mutex
	var list []string
	p = &slipswitch.Proxy{
		TemplateAddresses: loopback,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			list = append(list, address)
			mu.Unlock()
			return new(net.Dialer).DialContext(ctx, "tcp", u.listener.Addr().String())
		},
	}
	return p, func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { list = nil }()
		return list
	}
}

// TestTemplates: one route leads to as many upstreams as there are names.
func TestTemplates(t *testing.T) {
	for _, test := range []struct {
		name, host, path, upstream string
		want                       map[string]string // by "host path", the address and path that are asked; "": 404
	}{
		{"segment", "", "/service", "http://{1}.svc.example.:8080/base", map[string]string{
			host + " /service/web-1":           "web-1.svc.example.:8080 /base/service/web-1",
			host + " /service/web-2/x/web-1?q": "web-2.svc.example.:8080 /base/service/web-2/x/web-1?q",
			host + " /service/web-1//x":        "web-1.svc.example.:8080 /base/service/web-1//x",
			host + " /service/x/../web-1/":     "web-1.svc.example.:8080 /base/service/web-1/",
			host + " /service":                 "", host + " /service/": "", host + " /service//web-1": "",
			host + " /service/Web-1/": "", host + " /service/%77eb/": "", host + " /service/we_b": "",
			host + " /service/a.b/": "", host + " /service/a%2eb/": "", host + " /service/a%2fb/": "", host + " /service/-a/": "", host + " /service/a-/": "",
			host + " /service/localhost/": "", host + " /service/2130706433/": "", host + " /service/0x7f000001/": "", host + " /service/0177/": "", host + " /service/0x/": "",
			host + " /service/a@b/": "", host + " /service/a:80/": "", host + " /service/%00": "400", host + " /service/{1}/": "", host + " /service/b%C3%BCro/": "",
			host + " /service/" + strings.Repeat("a", 63): strings.Repeat("a", 63) + ".svc.example.:8080 /base/service/" + strings.Repeat("a", 63),
			host + " /service/" + strings.Repeat("a", 64): "",
		}},
		{"label", "*.example.com", "/", "http://{host.1}.svc.example.", map[string]string{
			"ide-7.example.com /x":       "ide-7.svc.example.:80 /x",
			"IDE-7.Example.COM.:8080 /x": "ide-7.svc.example.:80 /x",
			"localhost.example.com /":    "", "127.example.com /": "", "i_7.example.com /": "", "-a.example.com /": "", "a.b.example.com /": "",
		}},
		{"port", "*.example.com", "/", "http://{host.1}.svc.example.:{port:8080,3000-3002,1}", map[string]string{
			"ide-7.example.com /":       "ide-7.svc.example.:8080 /",
			"3000-ide-7.example.com /":  "ide-7.svc.example.:3000 /",
			"3002-ide-7.example.com /":  "ide-7.svc.example.:3002 /",
			"8080-80-x.example.com /":   "80-x.svc.example.:8080 /",
			"1-x.example.com /":         "x.svc.example.:1 /",
			"3000--ide-7.example.com /": "ide-7.svc.example.:3000 /", "ide-7--3000.example.com /": "ide-7.svc.example.:3000 /", "ide-7--x--3001.example.com /": "ide-7--x.svc.example.:3001 /",
			"3000--main--ws--alice.example.com /": "main--ws--alice.svc.example.:3000 /", "3000--ws--3001.example.com /": "ws--3001.svc.example.:3000 /",
			"ide-7-3000.example.com /": "ide-7-3000.svc.example.:8080 /", "ide--x.example.com /": "ide--x.svc.example.:8080 /",
			"ide--7.example.com /": "", "--3000.example.com /": "", "3000--.example.com /": "", "3000---x.example.com /": "", "x---3000.example.com /": "", "x--03000.example.com /": "",
			"3003-ide-7.example.com /": "", "22-ide-7.example.com /": "", "03000-ide-7.example.com /": "", "-ide-7.example.com /": "", "3000-.example.com /": "",
			"3000.example.com /": "", "3000-3000.example.com /": "", "99999999999999999999-x.example.com /": "", "0-x.example.com /": "", "65537-x.example.com /": "",
		}},
		{"both", "*.example.com", "/s", "http://{1}.ns-{host.1}-x.example.:{port:80,81}", map[string]string{
			"a.example.com /s/81-b/":                       "81-b.ns-a-x.example.:80 /s/81-b/", // the port is the label's
			"81-a.example.com /s/b/":                       "b.ns-a-x.example.:81 /s/b/",
			"a.example.com /s/b/":                          "b.ns-a-x.example.:80 /s/b/",
			strings.Repeat("a", 58) + ".example.com /s/b/": strings.Join([]string{"b.ns-", "-x.example.:80 /s/b/"}, strings.Repeat("a", 58)),
			strings.Repeat("a", 59) + ".example.com /s/b/": "", // with what is around it, over 63
		}},
		{"listed", "", "/service", "http://{1:web,ide-*}:8080", map[string]string{
			host + " /service/web/":   "web:8080 /service/web/",
			host + " /service/ide-7/": "ide-7:8080 /service/ide-7/",
			host + " /service/webs/":  "", host + " /service/metadata/": "", host + " /service/ide/": "",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := startUpstream(t, func(received) string { return ok("", "Connection: close") })
			p, addresses := dialled(u)
			g := startGateway(t, p, slipswitch.Route{Host: test.host, Path: test.path, Upstreams: slipswitch.To(test.upstream)})
			for request, want := range test.want {
				host, target, _ := strings.Cut(request, " ")
				a := g.do("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
				got := ""
				if dials := addresses(); len(dials) > 0 {
					got = strings.Join(dials, ",") + " " + u.only().target()
				} else if a.StatusCode != 404 {
					got = fmt.Sprint(a.StatusCode)
				}
				if got != want {
					t.Errorf("%s: %s, asked %q; want %q", request, a.Status, got, want)
				}
			}
		})
	}
}

// TestTemplateStrip: what is captured belongs to the prefix.
func TestTemplateStrip(t *testing.T) {
	u := answering(t, ok("", "Connection: close"))
	p, _ := dialled(u)
	g := startGateway(t, p, slipswitch.Route{Path: "/service", StripPath: true, Upstreams: slipswitch.To("http://{1}.svc.example.")})
	if a := g.get("/service/web?q"); a.StatusCode != 307 || a.Header.Get("Location") != "web/?q" {
		t.Errorf("got %s to %q; want 307 to web/?q", a.Status, a.Header.Get("Location"))
	}
	g.get("/service/web/x/y")
	if got := u.only(); got.target() != "/x/y" || got.Header.Get("X-Forwarded-Prefix") != "/service/web" {
		t.Errorf("got %q with prefix %q; want /x/y with /service/web", got.target(), got.Header["X-Forwarded-Prefix"])
	}
}

// TestTemplateTunnels: upgrades take the same way.
func TestTemplateTunnels(t *testing.T) {
	u := tunneling(t)
	p, addresses := dialled(u)
	g := startGateway(t, p, slipswitch.Route{Path: "/service", Upstreams: slipswitch.To("http://{1}.svc.example.:9")})
	client, far := g.open("/service/web/socket", u)
	if got := addresses(); !slices.Equal(got, []string{"web.svc.example.:9"}) {
		t.Errorf("dialled %q", got)
	}
	far.Close()
	client.expectEOF()
	client.Close()
	if r := g.report(); r.Upstream != "http://web.svc.example.:9" {
		t.Errorf("the report names %q", r.Upstream)
	}
	client = g.dial()
	client.send(handshake("/service/127/socket"))
	if a := client.answer("GET"); a.StatusCode != 404 || len(addresses()) > 0 {
		t.Errorf("got %s; want 404", a.Status)
	}
}

// TestMiddlewareSeesCaptures, and no request whose captures are invalid.
func TestMiddlewareSeesCaptures(t *testing.T) {
	u := answering(t, ok("", "Connection: close"))
	p, _ := dialled(u)
	var seen []string
	p.Middleware = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m, _ := slipswitch.MatchFrom(r.Context())
			seen = append(seen, m.Capture("1")+" "+m.Capture("host.1")+" "+m.Capture("port")+" "+m.Capture("2"))
			next.ServeHTTP(w, r)
		})
	}
	g := startGateway(t, p, slipswitch.Route{Host: "*.example.com", Path: "/s", Upstreams: slipswitch.To("http://{1}.{host.1}.svc.example.:{port:1,2}")})
	g.get("/s/web/x", "X: y")
	g.do("GET /s/web/ HTTP/1.1\r\nHost: 2-b.example.com\r\n\r\n")
	g.get("/s/0x1/x")
	if want := []string{"web ide  ", "web b 2 "}; !slices.Equal(seen, want) {
		t.Errorf("Middleware saw %q; want %q", seen, want)
	}
}

func TestPutRefusesTemplates(t *testing.T) {
	for upstream, fine := range map[string]bool{
		"http://{1}.svc.example.": true, "https://ide-{1}.svc.example.:8443/base": true, "h2c://{host.1}.svc.example.:{port:1-65535}": true,
		"http://{1}.{host.1}.example.com.": true, "http://{1:a,b-*}": true, "http://{1:*}:8080": true, "http://x-{1:a}-y.z:1": true, "HTTP://{1}.a.": true,
		"http://{1:a}.{host.1:b}": true,
		"http://{1}":              false, "http://{1}.": false, "http://{1}:8080": false, "http://ide-{1}": false, "http://{1}.svc": false, "http://{1}.svc.example": false,
		"http://{1}x.": false, "http://svc.example.{1}": false, "http://svc.example.{1}.": false, "http://{1}.1.": false, "http://{1}.0x1.": false,
		"http://{1}.{host.1}": false, "http://{1:a}.{host.1}": false, "http://{1}{host.1}.example.": false, "http://{1}-{host.1}.example.": false, "http://{1}.{1}.example.": false,
		"http://{2}.example.": false, "http://{host.2}.example.": false, "http://{}.example.": false, "http://{1.example.": false, "http://1}.example.": false,
		"http://{{1}}.example.": false, "http://{1:}.example.": false, "http://{1:A}.example.": false, "http://{1:a*b}": false, "http://{1:a.b}": false, "http://{1:*a}": false,
		"http://{1}.example.:{port}": false, "http://{1}.example.:{port:}": false, "http://{1}.example.:{port:0}": false, "http://{1}.example.:{port:2-1}": false,
		"http://{1}.example.:{port:1,}": false, "http://{1}.example.:{port:65536}": false, "http://{1}.example.:{port:80": false, "http://{1}.example.:{port:08}": false,
		"http://{1}.example.:0": false, "http://{1}.example.:x": false, "http://{1}.example.:80:81": false, "http://example.:{port:80,81}": false,
		"http://u@{1}.example.": false, "http://{1}.example./a?b": false, "http://{1}.example./#": false, "http://{1}.example./../b": false, "http://{1}.example./{1}": false, "http://example./{1}": false,
		"http://0/{": false, "http://example./}": false, "http://example./%7B1%7D": true, "http://{1}.Example.": false,
		"http://[::1]{1}.example.": false, "ftp://{1}.example.": false, "http:{1}.example.": false, "http://{port:80}.example.": false, "http://exa mple{1}.a.": false,
	} {
		var router slipswitch.Router
		r := slipswitch.Route{Host: "*.example.com", Path: "/a", Upstreams: slipswitch.To(upstream)}
		if _, err := router.Apply(nil, slipswitch.Change{Put: &r}); (err == nil) != fine {
			t.Errorf("%s: got error %v", upstream, err)
		}
	}
	for _, r := range []slipswitch.Route{
		{Path: "/a", Upstreams: slipswitch.To("http://{host.1}.example.")},
		{Host: "**.example.com", Path: "/a", Upstreams: slipswitch.To("http://{host.1}.example.")},
		{Path: "/a", Exact: true, Upstreams: slipswitch.To("http://{1}.example.")},
		{Path: "/a", Upstreams: slipswitch.To("http://{1}.example.", "http://b")},
		{Path: "/a", Upstreams: slipswitch.To("http://{1}.example.", "http://{1}.example.:{port:80,81}")},
	} {
		var router slipswitch.Router
		_, err := router.Apply(nil, slipswitch.Change{Put: &r})
		if batch, ok := errors.AsType[*slipswitch.BatchError](err); !ok || !strings.HasPrefix(batch.Routes[0].Field, "upstreams[") || !strings.HasPrefix(batch.Routes[0].Want, "must ") {
			t.Errorf("%+v: got error %v", r, err)
		}
	}
}

// TestOwnerOfTemplates: an owner that may lead to some addresses may not lead
// to names that its clients choose.
func TestOwnerOfTemplates(t *testing.T) {
	var router slipswitch.Router
	r := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://{1}.svc.example.:80")}
	for limit, fine := range map[string]bool{"10.0.0.0/8": false, "svc.example.": false, "{1}.svc.example.:80": true} {
		if err := router.Check(&slipswitch.Owner{Upstreams: []string{limit}}, slipswitch.Change{Put: &r}); (err == nil) != fine {
			t.Errorf("%s: got error %v", limit, err)
		}
	}
}

// TestLookupOfTemplatesAllocatesNothing either.
func TestLookupOfTemplatesAllocatesNothing(t *testing.T) {
	var router slipswitch.Router
	put(t, &router, slipswitch.Route{Host: "*.example.com", Path: "/s", Upstreams: slipswitch.To("http://{1}.{host.1}.svc.example.")})
	if n := testing.AllocsPerRun(100, func() {
		m, err := router.Lookup("ide-7.example.com", "/s/web/x")
		if err != nil || m.Capture("1") != "web" || m.Capture("host.1") != "ide-7" {
			t.Fatal(m, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations; want 0", n)
	}
}

// A nameServer answers each question for IPv4 addresses with what answer
// returns.
func nameServer(t *testing.T, answer func(name string) []netip.Addr) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			question := buf[12:n]
			name, end := "", 0
			for question[end] != 0 {
				length := int(question[end])
				name += string(question[end+1:end+1+length]) + "."
				end += 1 + length
			}
			question = question[:end+5]
			reply := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
			if binary.BigEndian.Uint16(question[end+1:]) == 1 { // A
				for _, addr := range answer(name) {
					reply[7]++
					reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
					reply = append(reply, addr.AsSlice()...)
				}
			}
			conn.WriteTo(reply, from)
		}
	})
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		conn.Close()
		running.Wait()
	})
}

// TestResolvedAddresses: what a captured name leads to is looked at when it is
// connected to, at each connection anew; what a plain route leads to is not.
func TestResolvedAddresses(t *testing.T) {
	u := startUpstream(t, func(received) string { return ok("hello", "Connection: close") })
	port := netip.MustParseAddrPort(u.listener.Addr().String()).Port()
	var address atomic.Value // netip.Addr
	nameServer(t, func(string) []netip.Addr { return []netip.Addr{address.Load().(netip.Addr)} })
	template := slipswitch.Route{Path: "/t", Upstreams: slipswitch.To(fmt.Sprintf("http://{1}.ide.example.:%d", port))}
	plain := slipswitch.Route{Path: "/plain", Upstreams: slipswitch.To(fmt.Sprintf("http://web.ide.example.:%d", port))}
	ask := func(g *gateway, target, addr string, want int) {
		t.Helper()
		address.Store(netip.MustParseAddr(addr))
		a := g.get(target)
		if a.StatusCode != want || strings.Contains(a.body, addr) {
			t.Errorf("%s at %s: got %s %q; want %d", target, addr, a.Status, a.body, want)
		}
		client := g.dial()
		defer client.Close()
		client.send(handshake(target))
		if a := client.answer("GET"); a.StatusCode != want {
			t.Errorf("upgrade of %s at %s: got %s; want %d", target, addr, a.Status, want)
		}
	}
	var log logBuffer
	g := startGateway(t, &slipswitch.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil))}, template, plain)
	ask(g, "/plain", "127.0.0.1", 200)
	received := len(u.all())
	for _, addr := range append([]string{"127.0.0.1", "127.8.8.8", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"}, ownAddresses(t)...) {
		ask(g, "/t/web", addr, 502)
		receive(t, "all is logged", slipswitch.Logged(g.Proxy))
		if n := strings.Count(log.String(), "leads to "+addr+","); n != 2 {
			t.Errorf("%s was refused %d times; want 2", addr, n)
		}
	}
	if n := len(u.all()); n != received {
		t.Errorf("%d requests arrived", n-received)
	}

	g = startGateway(t, &slipswitch.Proxy{TemplateAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, template, plain)
	ask(g, "/t/web", "127.0.0.1", 200)
	ask(g, "/t/web", "169.254.169.254", 502) // the same name, looked up again
	ask(g, "/t/web", "127.0.0.2", 502)
	ask(g, "/t/web", "127.0.0.1", 200)
}

// TestEachAddressIsLookedAt: of a name with several addresses only those that are
// allowed are connected to, in whatever order they come.
func TestEachAddressIsLookedAt(t *testing.T) {
	u := startUpstream(t, func(received) string { return ok("hello", "Connection: close") })
	port := netip.MustParseAddrPort(u.listener.Addr().String()).Port()
	var addresses atomic.Value // []netip.Addr
	nameServer(t, func(string) []netip.Addr { return addresses.Load().([]netip.Addr) })
	good, dead, bad := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("169.254.169.254")
	var log logBuffer
	g := startGateway(t, &slipswitch.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil)),
		TemplateAddresses: []netip.Prefix{netip.PrefixFrom(good, 32), netip.PrefixFrom(dead, 32)}},
		slipswitch.Route{Path: "/t", Upstreams: slipswitch.To(fmt.Sprintf("http://{1}.ide.example.:%d", port))})
	for _, test := range []struct {
		list []netip.Addr
		want int
	}{
		{[]netip.Addr{good, bad}, 200}, {[]netip.Addr{bad, good}, 200}, {[]netip.Addr{dead, good}, 200}, {[]netip.Addr{bad, bad}, 502}, {[]netip.Addr{dead, bad}, 502},
	} {
		addresses.Store(test.list)
		for _, raw := range []string{request("GET", "/t/web"), handshake("/t/web")} {
			if a := g.do(raw); a.StatusCode != test.want {
				t.Errorf("%v: got %s; want %d", test.list, a.Status, test.want)
			}
		}
	}
	receive(t, "all is logged", slipswitch.Logged(g.Proxy))
	if !strings.Contains(log.String(), "leads to "+bad.String()) {
		t.Errorf("%s was not refused: %s", bad, log.String())
	}
}

// ownAddresses returns this machine's addresses that are not special by themselves.
func ownAddresses(t *testing.T) (own []string) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nets {
		if addr := netip.MustParsePrefix(n.String()).Addr(); addr.Is4() && !addr.IsLoopback() {
			own = append(own, addr.String())
		}
	}
	return own
}

// TestGuardedConnectionsAreTheirOwn: a connection that a plain route has left
// is no way around the look at its address.
func TestGuardedConnectionsAreTheirOwn(t *testing.T) {
	u := answering(t, ok("hello")) // keeps connections
	nameServer(t, func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
	port := netip.MustParseAddrPort(u.listener.Addr().String()).Port()
	g := startGateway(t, &slipswitch.Proxy{},
		slipswitch.Route{Path: "/plain", Upstreams: slipswitch.To(fmt.Sprintf("http://web.ide.example.:%d", port))},
		slipswitch.Route{Path: "/t", Upstreams: slipswitch.To(fmt.Sprintf("http://{1}.ide.example.:%d", port))})
	for range 3 {
		if a := g.get("/plain"); a.StatusCode != 200 {
			t.Fatalf("got %s", a.Status)
		}
		if a := g.get("/t/web"); a.StatusCode != 502 {
			t.Errorf("got %s %q; want 502", a.Status, a.body)
		}
	}
}

// TestDialContextIsGuarded: a caller's dialer is not asked to look.
func TestDialContextIsGuarded(t *testing.T) {
	u := answering(t, ok("hello"))
	p, addresses := dialled(u)
	p.TemplateAddresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	g := startGateway(t, p, slipswitch.Route{Path: "/t", Upstreams: slipswitch.To("http://{1}.ide.example.")})
	if a := g.get("/t/web"); a.StatusCode != 502 || len(addresses()) == 0 {
		t.Errorf("got %s; want 502", a.Status)
	}
	u.nothing()
}

// TestDialContextsAddressesAreGuarded, whatever type they are of.
func TestDialContextsAddressesAreGuarded(t *testing.T) {
	u := answering(t, ok("hello", "Connection: close"))
	for remote, want := range map[string]int{"127.0.0.1:80": 502, "[::ffff:7f00:1]:80": 502, "[fe80::1%eth0]:80": 502, "10.0.0.7:80": 200, "pipe": 200} {
		p := &slipswitch.Proxy{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.listener.Addr().String())
			return elsewhere{conn, remote}, err
		}}
		g := startGateway(t, p, slipswitch.Route{Path: "/t", Upstreams: slipswitch.To("http://{1}.ide.example.")})
		if a := g.get("/t/web"); a.StatusCode != want {
			t.Errorf("%s: got %s; want %d", remote, a.Status, want)
		}
	}
}

// An elsewhere is a connection with an address of a type of its own.
type elsewhere struct {
	net.Conn
	remote string
}

func (e elsewhere) RemoteAddr() net.Addr { return e }
func (e elsewhere) Network() string      { return "tunnel" }
func (e elsewhere) String() string       { return e.remote }

// TestLoop: a gateway that leads to itself answers after a few rounds, and not
// before.
func TestLoop(t *testing.T) {
	var rounds atomic.Int64
	p := &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rounds.Add(1)
			next.ServeHTTP(w, r)
		})
	}}
	g := startGateway(t, p)
	g.put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://" + g.addr)})
	for _, raw := range []string{request("GET", "/"), request("POST", "/", "Content-Length: 5") + "hello", handshake("/"),
		request("GET", "/", "Connection: Via", "Via: 1.1 slipswitch"), request("GET", "/", "Via: 1.1 other, 1.0 slipswitches")} {
		rounds.Store(0)
		if a := g.do(raw); a.StatusCode != 508 || a.Header.Get("Proxy-Status") != "slipswitch; error=proxy_loop_detected" || rounds.Load() != 8 {
			t.Errorf("%.60q: got %s after %d rounds; want 508 after 8", raw, a.Status, rounds.Load())
		}
	}
	u := answering(t, ok(""))
	g.put(route("/", u))
	if a := g.get("/", "Via: 1.1 a", "Via: 1.1 slipswitch"); a.StatusCode != 200 {
		t.Errorf("got %s", a.Status)
	}
	if got := u.only().Header["Via"]; !slices.Equal(got, []string{"1.1 a, 1.1 slipswitch, 1.1 slipswitch"}) {
		t.Errorf("got Via: %q", got)
	}
}

var placeholders = regexp.MustCompile(`\{(1|host\.1)(?::[^}]*)?\}`)

// FuzzTemplate: wherever a request leads by a template that Put takes, the name
// is one that the template can make, with one plain label for each capture, which
// is the request's own; it is no address, and its port is on the list.
func FuzzTemplate(f *testing.F) {
	for _, seed := range [][3]string{
		{"http://{1}.svc.example.:8080/base", "a.example.com", "/s/web-1/x"},
		{"http://{1}.{host.1}-x.svc.example.:{port:80,3000-3999}", "3000-ide-7.example.com", "/s/web"},
		{"https://{1:web,ide-*}", "a.example.com", "/s/ide-7"},
		{"http://a.{1:1*,0x*}:80", "a.example.com", "/s/127"},
		{"h2c://x-{host.1}.a.b.:65535", "3000-0x1.example.com:80", "/s/%2e"},
		{"http://{1}.a.", "localhost.example.com", "/s/localhost/"},
		{"http://{1:a*}.{host.1:b*}", "b-1.example.com", "/s/a%2fb"},
		{"http://{1}.svc.example.", "a.example.com", "/s/0x7f000001/"},
		{"http://a.0{1:x*}:80", "a.example.com", "/s/x7f"},
		{"http://{host.1}.a.b.:{port:80,90-91}", "89-c.example.com", "/s"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, upstream, host, path string) {
		var router slipswitch.Router
		r := slipswitch.Route{Host: "*.example.com", Path: "/s", Upstreams: slipswitch.To(upstream)}
		if _, err := router.Apply(nil, slipswitch.Change{Put: &r}); err != nil || !strings.Contains(upstream, "{") {
			return
		}
		m, err := router.Lookup(host, path)
		if err != nil {
			return
		}
		addresses, err := m.Leads()
		if err != nil {
			if e, ok := errors.AsType[*slipswitch.Error](err); !ok || e.Status != 404 {
				t.Fatalf("%q, %q %q: got %v", upstream, host, path, err)
			}
			return
		}
		_, authority, _ := strings.Cut(upstream, "//")
		authority, _, _ = strings.Cut(authority, "/")
		// The template as an expression: text stands for itself, a capture for a label.
		pattern, rest := "^", authority
		var names []string
		for {
			at := placeholders.FindStringSubmatchIndex(rest)
			if at == nil {
				break
			}
			pattern += regexp.QuoteMeta(rest[:at[0]]) + "([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)"
			names, rest = append(names, rest[at[2]:at[3]]), rest[at[1]:]
		}
		rest, ports, listed := strings.Cut(rest, "{port:")
		pattern += regexp.QuoteMeta(strings.TrimSuffix(rest, ":"))
		name, port, err := net.SplitHostPort(addresses[0])
		number, bad := strconv.Atoi(port)
		got := regexp.MustCompile(strings.TrimSuffix(pattern, regexp.QuoteMeta(":"+port)) + "$").FindStringSubmatch(name)
		if err != nil || bad != nil || number < 1 || number > 65535 || got == nil || len(name) > 254 {
			t.Fatalf("%q, %q %q: leads to %q", upstream, host, path, addresses)
		}
		for i, capture := range names {
			value := got[i+1]
			label, _, _ := strings.Cut(strings.ToLower(host), ".")
			own := capture == "1" && strings.HasPrefix(m.Path, "/s/"+value) || capture == "host.1" && strings.HasSuffix(label, value)
			if !own || value == "localhost" || strings.HasPrefix(value, "0x") || strings.Trim(value, "0123456789") == "" {
				t.Errorf("%q, %q %q: %s is %q", upstream, host, path, capture, value)
			}
		}
		labels := strings.Split(strings.TrimSuffix(name, "."), ".")
		last := labels[len(labels)-1]
		if _, err := netip.ParseAddr(name); err == nil || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") || slices.ContainsFunc(labels, func(l string) bool { return l == "" || len(l) > 63 }) {
			t.Errorf("%q, %q %q: leads to %q", upstream, host, path, name)
		}
		if listed {
			allowed := false
			for one := range strings.SplitSeq(strings.TrimSuffix(ports, "}"), ",") {
				first, end, isRange := strings.Cut(one, "-")
				from, _ := strconv.Atoi(first)
				to, _ := strconv.Atoi(end)
				allowed = allowed || number == from || isRange && from <= number && number <= to
			}
			if !allowed {
				t.Errorf("%q, %q %q: port %s is not on the list", upstream, host, path, port)
			}
		}
	})
}

// TestCapturedOnce: what an admitted request has captured is known from then on.
func TestCapturedOnce(t *testing.T) {
	p := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	p.Middleware = func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m, _ := slipswitch.MatchFrom(r.Context())
			if got := m.Capture("host.1"); got != "ide-7" {
				t.Errorf("got %q; want ide-7", got)
			}
			if n := testing.AllocsPerRun(10, func() { m.Capture("host.1") }); n > 0 {
				t.Errorf("it is computed again: %v allocations", n)
			}
		})
	}
	if _, err := p.Router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{Host: "*.example.com", Path: "/",
		Upstreams: slipswitch.To("http://{host.1}.ide.svc.cluster.local.")}}); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = "IDE-7.example.com"
	p.ServeHTTP(httptest.NewRecorder(), r)
}
