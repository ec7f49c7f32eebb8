package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// An address is one that clients have.
type address string

// upgrade asks for a socket, from this address.
func (a address) upgrade(t testing.TB, url string) (*websocket.Conn, *http.Response) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(string(a))}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, response, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil && response == nil {
		t.Errorf("upgrade from %s: %v", a, err)
		return nil, &http.Response{}
	}
	if conn != nil {
		t.Cleanup(func() { conn.CloseNow() })
	}
	return conn, response
}

// turnedAway wants a refusal that says when to come again.
func turnedAway(t testing.TB, what string, response *http.Response) {
	t.Helper()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("%s: %s, Retry-After %q; want 503 and when to come again", what, response.Status, response.Header.Get("Retry-After"))
	}
}

// Over a limit of tunnels one is told when to come again; who is in stays in,
// and when one leaves there is room. A flood from one address keeps nobody else out.
func TestTunnelLimits(t *testing.T) {
	const here, there = address("127.0.0.1"), address("127.0.0.2")
	for _, test := range []struct {
		flag  string
		most  int // of what the flag limits
		other func() (from address, path string)
		in    bool // whether that one gets in all the same
	}{
		{"-max-tunnels=4", 4, func() (address, string) { return there, "/ide-2/echo" }, false},
		{"-max-tunnels-per-route=3", 3, func() (address, string) { return here, "/ide-2/echo" }, true},
		{"-max-tunnels-per-client=2", 2, func() (address, string) { return there, "/ide-1/echo" }, true},
	} {
		t.Run(test.flag, func(t *testing.T) {
			t.Parallel()
			if runtime.GOOS != "linux" {
				t.Skip("there is only one loopback address")
			}
			g := start(t, test.flag)
			server := newIDE(t)
			for _, path := range []string{"/ide-1", "/ide-2"} {
				g.put(slipswitch.Route{Path: path, StripPath: true, Upstreams: slipswitch.To(server.URL)})
			}
			var mu sync.Mutex
			var in []*websocket.Conn
			var flood sync.WaitGroup
			for range 20 {
				flood.Go(func() {
					conn, response := here.upgrade(t, "ws://"+g.public+"/ide-1/echo")
					if conn == nil {
						turnedAway(t, "the flood", response)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					in = append(in, conn)
				})
			}
			flood.Wait()
			if len(in) != test.most {
				t.Fatalf("%d of 20 got in; want %d", len(in), test.most)
			}
			from, path := test.other()
			conn, response := from.upgrade(t, "ws://"+g.public+path)
			switch {
			case conn == nil && test.in:
				t.Errorf("another got %s; want to get in", response.Status)
			case conn == nil:
				turnedAway(t, "another", response)
			case !test.in:
				t.Error("another got in; want the limit to be for all")
			default:
				echoes(t, conn)
			}
			for _, conn := range in {
				echoes(t, conn)
			}
			in[0].CloseNow()
			programtest.Eventually(t, "there is room again", func() bool {
				conn, _ := here.upgrade(t, "ws://"+g.public+"/ide-1/echo")
				return conn != nil
			})
		})
	}
}

// Upgrades that wait for a slow upstream are limited, and nothing else is.
func TestHandshakeLimit(t *testing.T) {
	g := start(t, "-max-handshakes=3")
	server := newIDE(t)
	arrived, answer := make(chan struct{}, 100), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-answer
		conn, err := websocket.Accept(w, r, nil)
		if err == nil {
			conn.Read(context.Background())
		}
	}))
	defer slow.Close()
	g.put(slipswitch.Route{Path: "/ide-1", StripPath: true, Upstreams: slipswitch.To(server.URL)},
		slipswitch.Route{Path: "/slow", Upstreams: slipswitch.To(slow.URL)})
	const here = address("127.0.0.1")
	conn, _ := here.upgrade(t, "ws://"+g.public+"/ide-1/echo")
	opened := make(chan bool, 3)
	for range 3 {
		go func() {
			conn, _ := here.upgrade(t, "ws://"+g.public+"/slow")
			opened <- conn != nil
		}()
		programtest.Receive(t, "the upstream is asked", arrived)
	}
	for _, path := range []string{"/slow", "/ide-1/echo"} {
		conn, response := here.upgrade(t, "ws://"+g.public+path)
		if conn != nil {
			t.Fatalf("%s: one got in over the limit", path)
		}
		turnedAway(t, path, response)
	}
	if response, _, err := g.get("/ide-1/"); err != nil || response.StatusCode != 200 {
		t.Errorf("a plain request: %v, %v; want 200", response, err)
	}
	echoes(t, conn)
	close(answer)
	for range 3 {
		if !programtest.Receive(t, "an upgrade is answered", opened) {
			t.Error("one that waited did not get in")
		}
	}
	programtest.Eventually(t, "there is room again", func() bool {
		conn, _ := here.upgrade(t, "ws://"+g.public+"/slow")
		return conn != nil
	})
}

// Near the limit of descriptors the gateway says that it is not ready, before
// it has to turn everybody away; what is open lives.
func TestNotReadyNearDescriptorLimit(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts on Linux's limits")
	}
	g := startCommand(t, exec.Command("sh", "-c", `ulimit -n 200; exec "$0" "$@"`, program,
		"-listen=127.0.0.1:0", "-admin=127.0.0.1:0", "-admin-token="+token, "-log-format=json", "-drain-delay=0s", "-drain-window=5s"), token)
	server := newIDE(t)
	g.put(slipswitch.Route{Path: "/ide-1", StripPath: true, Upstreams: slipswitch.To(server.URL)})
	conn := dial(t, "ws://"+g.public+"/ide-1/echo", nil)
	ready := func() bool {
		response, err := client.Get("http://" + g.admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		return response.StatusCode == 200
	}
	if !ready() {
		t.Fatal("not ready at first")
	}
	var idle []net.Conn
	defer func() {
		for _, conn := range idle {
			conn.Close()
		}
	}()
	programtest.Eventually(t, "not ready", func() bool {
		conn, err := net.Dial("tcp", g.public)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
		return !ready()
	})
	if n := g.descriptors(); len(idle) < 50 || n > 180 {
		t.Errorf("not ready with %d connections and %d descriptors of 200; want some to be left, and not many", len(idle), n)
	}
	var status struct {
		Ready    bool
		NotReady string
	}
	g.must("GET", "/v1/status", nil, &status)
	if status.Ready || status.NotReady == "" {
		t.Errorf("got %+v; want a reason", status)
	}
	over, err := net.Dial("tcp", g.public)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	fmt.Fprintf(over, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	over.SetReadDeadline(time.Now().Add(patience))
	answer := make([]byte, 12)
	if _, err := io.ReadFull(over, answer); err != nil || string(answer) != "HTTP/1.1 503" {
		t.Errorf("one connection more: got %q, %v; want 503", answer, err)
	}
	echoes(t, conn)
	for _, conn := range idle {
		conn.Close()
	}
	programtest.Eventually(t, "ready again", ready)
}

// However short the window, and whatever the peers do, each tunnel's report is
// logged before the process ends.
func TestShortDrainReportsAll(t *testing.T) {
	g := start(t, "-drain-window=1s")
	server := newIDE(t)
	g.put(slipswitch.Route{Path: "/ide-1", StripPath: true, Upstreams: slipswitch.To(server.URL)})
	const n = 50
	for range n {
		dial(t, "ws://"+g.public+"/ide-1/echo", nil) // never reads, and so never answers a Close frame
	}
	begin := time.Now()
	g.signal(syscall.SIGTERM)
	g.wait(0)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	closed, _ := g.logged("tunnel closed")
	if len(closed) != n {
		t.Errorf("%d close reports; want %d", len(closed), n)
	}
	for _, report := range closed {
		if report["state"] != "GP" || report["why"] != "shutdown" {
			t.Errorf("close report %v; want one by the gateway, for its shutdown", report)
		}
	}
}
