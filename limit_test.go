package slipswitch_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// behind lets the tests say which client they are.
var behind = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

func TestLimits(t *testing.T) {
	from := func(client string) []string { return []string{"X-Forwarded-For: " + client} }
	type try struct {
		path   string
		client string
		opens  bool
	}
	for _, test := range []struct {
		name   string
		limits slipswitch.Limits
		tries  []try
	}{
		{"none", slipswitch.Limits{}, []try{{"/a", "10.0.0.1", true}, {"/a", "10.0.0.1", true}}},
		{"in all", slipswitch.Limits{Tunnels: 2}, []try{{"/a", "10.0.0.1", true}, {"/b", "10.0.0.2", true}, {"/a", "10.0.0.3", false}}},
		{"per route", slipswitch.Limits{TunnelsPerRoute: 1}, []try{{"/a", "10.0.0.1", true}, {"/a/x", "10.0.0.2", false}, {"/b", "10.0.0.1", true}}},
		{"per client", slipswitch.Limits{TunnelsPerClient: 1}, []try{{"/a", "10.0.0.1", true}, {"/b", "10.0.0.1", false}, {"/b", "10.0.0.2", true}}},
		{"per IPv6 client", slipswitch.Limits{TunnelsPerClient: 1}, []try{
			{"/a", "2001:db8:0:1::1", true}, {"/a", "2001:db8:0:1:ffff::2", false}, {"/a", "2001:db8:0:2::1", true}, {"/a", "::ffff:10.0.0.1", true}, {"/a", "10.0.0.1", false}}},
		{"handshakes", slipswitch.Limits{Handshakes: 1}, []try{{"/a", "10.0.0.1", true}, {"/b", "10.0.0.1", true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := tunneling(t)
			g := startGateway(t, &slipswitch.Proxy{Limits: test.limits, TrustedProxies: behind}, route("/a", u), route("/b", u))
			for round := range 2 { // what has ended counts no more
				var ends []*peer
				for _, try := range test.tries {
					client := g.dial()
					client.send(handshake(try.path, from(try.client)...))
					a := client.answer("GET")
					switch {
					case try.opens && a.StatusCode == 101:
						ends = append(ends, client, u.tunnel())
						g.tunnels(len(ends) / 2)
					case try.opens || a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || !a.Close || strings.Contains(a.body, "limit"):
						t.Errorf("round %d, %+v: got %s %v %s", round, try, a.Status, a.Header, a.body)
					}
				}
				for _, p := range ends {
					p.Close()
				}
				g.tunnels(0)
			}
		})
	}
}

// A handshake counts no more when its client has the 101.
func TestHandshakeEndsWithThe101(t *testing.T) {
	for name, limits := range map[string]slipswitch.Limits{"all": {Handshakes: 1}, "of a route": {HandshakesPerRoute: 1}} {
		t.Run(name, func(t *testing.T) {
			u := tunneling(t)
			p := &slipswitch.Proxy{Limits: limits}
			release := make(chan struct{})
			g := startHandler(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p.ServeHTTP(afterWrite{w, func() { <-release }}, r)
			}), route("/a", u))
			for range 2 {
				client := g.dial()
				client.send(handshake("/a"))
				if a := client.answer("GET"); a.StatusCode != 101 {
					t.Errorf("got %s %s; want 101", a.Status, a.body)
				}
			}
			close(release)
			g.tunnels(2)
		})
	}
}

// Handshakes count while they last, and no longer if they are refused or their
// upstream is not there.
func TestHandshakeLimit(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.request()
		asked <- struct{}{}
		select {
		case <-answer:
		case <-t.Context().Done():
		}
		io.WriteString(p.TCPConn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return false
	})
	gone := slipswitch.Route{Path: "/gone", Upstreams: slipswitch.To("http://127.0.0.1:1")}
	other := tunneling(t)
	for _, limit := range []struct {
		slipswitch.Limits
		other int // what another route's are answered meanwhile
	}{
		{slipswitch.Limits{Handshakes: 1, Tunnels: 1}, 503},
		{slipswitch.Limits{HandshakesPerRoute: 1}, 101},
	} {
		g := startGateway(t, &slipswitch.Proxy{Limits: limit.Limits}, route("/a", u), gone, route("/other", other))
		for range 3 {
			client := g.dial()
			client.send(handshake("/a"))
			receive(t, "the upstream is asked", asked)
			if a := g.do(handshake("/a/b")); a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" {
				t.Errorf("a second handshake: got %s", a.Status)
			}
			if a := g.do(handshake("/other")); a.StatusCode != limit.other {
				t.Errorf("another route: got %s; want %d", a.Status, limit.other)
			}
			answer <- struct{}{}
			if a := client.answer("GET"); a.StatusCode != 403 {
				t.Errorf("the first: got %s", a.Status)
			}
			until(t, "there is room again", func() bool { return g.do(handshake("/gone")).StatusCode == 502 })
			again := g.dial()
			again.send(handshake("/a"))
			receive(t, "the upstream is asked", asked)
			answer <- struct{}{}
			if a := again.answer("GET"); a.StatusCode != 403 {
				t.Errorf("again: got %s", a.Status)
			}
			if limit.other == 101 {
				other.tunnel().Close()
			}
			g.tunnels(0)
		}
	}
}

// One address that floods the gateway takes its own share, not that of others.
func TestLimitUnderFlood(t *testing.T) {
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{TrustedProxies: behind, Limits: slipswitch.Limits{TunnelsPerClient: 4, Tunnels: 100}}, route("/a", u))
	var flood sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	refused := 0
	for range 8 {
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial("tcp", g.addr)
				if err != nil {
					t.Error(err)
					return
				}
				p := newPeer(t, conn)
				p.send(handshake("/a", "X-Forwarded-For: 2001:db8::666"))
				head, _ := p.head()
				if strings.HasPrefix(head, "HTTP/1.1 503 ") {
					mu.Lock()
					refused++
					mu.Unlock()
					conn.Close()
				} else {
					defer conn.Close()
				}
			}
		})
	}
	until(t, "the flood is refused", func() bool { mu.Lock(); defer mu.Unlock(); return refused > 20 })
	for i := range 20 {
		client := g.dial()
		client.send(handshake("/a", fmt.Sprintf("X-Forwarded-For: 2001:db8:0:%x::1", i+1)))
		if a := client.answer("GET"); a.StatusCode != 101 {
			t.Errorf("another client: got %s", a.Status)
		}
	}
	close(stop)
	flood.Wait()
	for open := len(u.opened); open > 0; open-- {
		u.tunnel().Close()
	}
}
