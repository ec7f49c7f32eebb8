package slipswitch_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Frames of a client, masked by zeros, and of an upstream.
const (
	clientText  = "\x81\x85\x00\x00\x00\x00hello"
	clientPing  = "\x89\x80\x00\x00\x00\x00"
	clientClose = "\x88\x82\x00\x00\x00\x00\x03\xe8"
	serverText  = "\x81\x05hello"
	serverPong  = "\x8a\x00"
	serverClose = "\x88\x02\x03\xe8"
)

// TestRouteChangesTouchNoTunnel is guarantee 1, and the default of 2: on its
// own route and on others, a tunnel lives on.
func TestRouteChangesTouchNoTunnel(t *testing.T) {
	t.Parallel()
	u, other := tunneling(t), answering(t, ok("other"))
	g := startGateway(t, &slipswitch.Proxy{}, route("/ws/ide-1", u), route("/ws/ide-2", u))
	client, far := g.open("/ws/ide-1", u)
	g.tunnels(1)
	second, farSecond := g.open("/ws/ide-2/x", u)
	for i, change := range []func(tx *slipswitch.Txn){
		func(tx *slipswitch.Txn) { tx.Delete(slipswitch.Key{Host: host, Path: "/ws/ide-1"}) },
		func(tx *slipswitch.Txn) { putFor(tx, route("/ws/ide-1", u)) },
		func(tx *slipswitch.Txn) { putFor(tx, route("/ws/ide-1", other)) },
		func(tx *slipswitch.Txn) { putFor(tx, route("/ws/ide-1/longer", other)) },
		func(tx *slipswitch.Txn) { putFor(tx, route("/ws", other)) },
		func(tx *slipswitch.Txn) {
			r := route("/ws/ide-1", u)
			r.StripPath, r.LifeTimeout, r.StallTimeout, r.Labels = true, time.Nanosecond, time.Nanosecond, map[string]string{"a": "b"}
			putFor(tx, r)
		},
		func(tx *slipswitch.Txn) {
			tx.Clear()
			for i := range 1000 {
				putFor(tx, route(fmt.Sprintf("/ws/ide-%d", i), other))
			}
		},
		func(tx *slipswitch.Txn) { tx.Clear() },
		func(tx *slipswitch.Txn) { putFor(tx, route("/ws/ide-1", u)) },
		func(tx *slipswitch.Txn) { tx.Delete(slipswitch.Key{Host: host, Path: "/ws/ide-2"}) },
	} {
		if _, err := g.Router.Update(func(tx *slipswitch.Txn) error { change(tx); return nil }); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*peer{client, second} {
			p.send(clientText)
		}
		for _, p := range []*peer{far, farSecond} {
			p.expect(clientText)
			p.send(serverText)
		}
		for _, p := range []*peer{client, second} {
			p.expect(serverText)
		}
		if open := g.tunnels(2); open[0].Route().Path != "/ws/ide-1" || open[1].Route().Path != "/ws/ide-2" || open[0].ID() >= open[1].ID() {
			t.Errorf("change %d: got %v, %v", i, open[0].Route(), open[1].Route())
		}
	}
	if len(g.reports) > 0 {
		t.Errorf("got report %+v", <-g.reports)
	}
	version := g.Router.Table().Version()
	for _, p := range []*peer{far, farSecond} {
		p.Close()
	}
	for _, p := range []*peer{client, second} {
		p.expectEOF()
		p.Close()
	}
	for range 2 {
		if r := g.report(); r.OpenVersion != 1 || r.CloseVersion != version || r.ClientMessages != 10 || r.UpstreamMessages != 10 {
			t.Errorf("got %+v; want version 1 to %d, 10 messages each way", r, version)
		}
	}
}

func putFor(tx *slipswitch.Txn, r slipswitch.Route) {
	if r.Host == "" {
		r.Host = host
	}
	tx.Put(r)
}

// TestRequestInFlightIsNotTouched: nor is a plain request, by the end of its
// route.
func TestRequestInFlightIsNotTouched(t *testing.T) {
	next := make(chan string)
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		for part := range next {
			io.WriteString(p.TCPConn, part)
		}
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	client := g.dial()
	client.send(request("GET", "/a"))
	next <- "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
	client.SetReadDeadline(time.Now().Add(wait))
	r, err := http.ReadResponse(client.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.Router.Update(func(tx *slipswitch.Txn) error { tx.Clear(); return nil })
	if a := g.get("/a"); a.StatusCode != 404 {
		t.Errorf("got %s", a.Status)
	}
	next <- "4\r\nlast\r\n0\r\n\r\n"
	close(next)
	if body, err := io.ReadAll(r.Body); string(body) != "firstlast" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
}

// TestTunnelCountsForItsPath: a route that was deleted and put again counts
// the old tunnel as its activity, since people are at work there.
func TestTunnelCountsForItsPath(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	key := slipswitch.Key{Host: host, Path: "/a"}
	client, far := g.open("/a", u)
	g.tunnels(1)
	for range 3 {
		g.Router.Update(func(tx *slipswitch.Txn) error { tx.Delete(slipswitch.Key{Host: host, Path: "/a"}); return nil })
		g.put(route("/a", u))
		entry, ok := g.Router.Table().At(key)
		if !ok || entry.Tunnels() != 1 {
			t.Fatalf("got %v, %d tunnels; want 1", ok, entry.Tunnels())
		}
		before := entry.LastActive()
		client.send(clientPing)
		far.expect(clientPing)
		if now := entry.LastActive(); !now.Equal(before) {
			t.Errorf("a ping is activity: %v, %v", before, now)
		}
		client.send(clientText)
		far.expect(clientText)
		until(t, "the text is activity", func() bool { return entry.LastActive().After(before) })
	}
	far.Close()
	client.expectEOF()
	client.Close()
	g.report()
	if entry, _ := g.Router.Table().At(key); entry.Tunnels() != 0 {
		t.Errorf("got %d tunnels", entry.Tunnels())
	}
}

// TestReports: who ended a tunnel, how and why, once for each.
func TestReports(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		route        slipswitch.Route
		end          func(g *gateway, client, far *peer)
		by, how, why string
	}{
		"client's FIN": {end: func(g *gateway, client, far *peer) {
			client.CloseWrite()
			far.expectEOF()
			far.Close()
			client.expectEOF()
		}, by: "client", how: "FIN"},
		"upstream's FIN": {end: func(g *gateway, client, far *peer) {
			far.CloseWrite()
			client.expectEOF()
			client.Close()
			far.expectEOF()
		}, by: "upstream", how: "FIN"},
		"client's RST": {end: func(g *gateway, client, far *peer) {
			client.reset()
			far.expectReset()
		}, by: "client", how: "RST"},
		"upstream's RST": {end: func(g *gateway, client, far *peer) {
			far.reset()
			client.expectReset()
		}, by: "upstream", how: "RST"},
		"client's Close": {end: func(g *gateway, client, far *peer) {
			client.send(clientClose)
			far.expect(clientClose)
			far.send(serverClose)
			far.Close()
			client.expect(serverClose)
			client.expectEOF()
			client.Close()
		}, by: "client", how: "close frame"},
		"upstream's Close": {end: func(g *gateway, client, far *peer) {
			far.send(serverClose)
			client.expect(serverClose)
			client.send(clientClose)
			client.CloseWrite()
			far.expect(clientClose)
			far.expectEOF()
			far.Close()
		}, by: "upstream", how: "close frame"},
		"idle": {route: slipswitch.Route{IdleTimeout: 100 * time.Millisecond}, end: func(g *gateway, client, far *peer) {
			client.leave()
			far.leave()
		}, by: "gateway", how: "timeout", why: "idle"},
		"idle, changed while open": {end: func(g *gateway, client, far *peer) {
			g.tunnels(1)
			r := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://10.0.0.1:1"), IdleTimeout: 50 * time.Millisecond}
			g.put(r)
			client.leave()
			far.leave()
		}, by: "gateway", how: "timeout", why: "idle"},
		"life": {route: slipswitch.Route{LifeTimeout: 200 * time.Millisecond}, end: func(g *gateway, client, far *peer) {
			client.leave()
			far.leave()
		}, by: "gateway", how: "timeout", why: "life"},
		"stall": {route: slipswitch.Route{StallTimeout: 100 * time.Millisecond}, end: func(g *gateway, client, far *peer) {
			flood := wsFrame(0x82, false, strings.Repeat("x", 60_000))
			for far.SetWriteDeadline(time.Now().Add(wait)); ; {
				if _, err := io.WriteString(far.TCPConn, flood); err != nil {
					break // the gateway has ended it
				}
			}
			client.Close()
			far.Close()
		}, by: "gateway", how: "timeout", why: "stall"},
		"shutdown": {end: func(g *gateway, client, far *peer) {
			g.tunnels(1)
			done := make(chan error)
			go func() { done <- g.Shutdown(context.Background()) }()
			both(client, far, 1012, "shutdown")
			if err := receive(g.t, "Shutdown returns", done); err != nil {
				g.t.Errorf("Shutdown: %v", err)
			}
		}, by: "gateway", how: "policy", why: "shutdown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := tunneling(t)
			r := test.route
			r.Path, r.Upstreams = "/a", slipswitch.To(u.url)
			g := startGateway(t, &slipswitch.Proxy{TunnelValue: func(r *http.Request) any { return r.Header.Get("Cookie") }}, r)
			client := g.dial()
			client.send(handshake("/a?token=secret", "Cookie: alice"))
			if a := client.answer("GET"); a.StatusCode != 101 {
				t.Fatalf("got %s", a.Status)
			}
			far := u.tunnel()
			client.send(clientText)
			far.expect(clientText)
			far.send(serverText)
			client.expect(serverText)
			client.SetDeadline(time.Time{})
			test.end(g, client, far)
			got := g.report()
			if string(got.By) != test.by || string(got.How) != test.how || string(got.Why) != test.why {
				t.Errorf("got %s, %s, %q; want %s, %s, %q", got.By, got.How, got.Why, test.by, test.how, test.why)
			}
			if got.ClientMessages != 1 || got.UpstreamMessages < 1 || got.Route.Path != "/a" || got.Upstream != u.url || got.Client != "127.0.0.1" ||
				got.Value != "alice" || got.Opened.IsZero() || got.Closed.Before(got.Opened) || strings.Contains(fmt.Sprint(got), "secret") {
				t.Errorf("got %+v", got)
			}
			g.tunnels(0)
			if len(g.reports) > 0 {
				t.Errorf("a second report: %+v", <-g.reports)
			}
		})
	}
}

// TestIdleTimeoutIsRearmed by anything, a ping too, from either side.
func TestIdleTimeoutIsRearmed(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	r := route("/a", u)
	r.IdleTimeout = 1500 * time.Millisecond
	g := startGateway(t, &slipswitch.Proxy{}, r)
	client, far := g.open("/a", u)
	began := time.Now()
	for i := 0; time.Since(began) < 3*r.IdleTimeout; i++ {
		<-time.After(r.IdleTimeout / 8)
		if i%2 == 0 {
			client.send(clientPing)
			far.expect(clientPing)
		} else {
			far.send(serverPong)
			client.expect(serverPong)
		}
	}
	last := time.Now()
	client.leave()
	far.leave()
	if got := g.report(); got.Why != "idle" || got.Closed.Sub(last) < r.IdleTimeout/2 {
		t.Errorf("got %+v", got)
	}
}

// TestHalfClose: one side has said all it will, the other goes on.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	long := strings.Repeat("0123456789abcdef", 1<<16)
	for name, ends := range map[string]func() (first, second *peer){
		"client":   func() (*peer, *peer) { client, far := g.open("/a", u); return client, far },
		"upstream": func() (*peer, *peer) { client, far := g.open("/a", u); return far, client },
	} {
		first, second := ends()
		first.send("bye")
		first.CloseWrite()
		second.expect("bye")
		second.expectEOF()
		go func() {
			second.send(long)
			second.Close()
		}()
		if got, err := first.rest(); got != long || err != nil {
			t.Errorf("%s: got %d of %d bytes, %v", name, len(got), len(long), err)
		}
		first.Close()
		if r := g.report(); string(r.By) != name || r.How != "FIN" {
			t.Errorf("%s first: got %s, %s", name, r.By, r.How)
		}
	}
}

// TestTunnelsLeakNothing: many of them, ended in all ways at once.
func TestTunnelsLeakNothing(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	const n = 60
	for i := range n {
		client, far := g.open("/a", u)
		go func() {
			client.send(clientText)
			switch i % 4 {
			case 0:
				client.reset()
				far.rest()
			case 1:
				far.reset()
				client.rest()
			case 2:
				client.CloseWrite()
				far.rest()
			case 3:
				far.CloseWrite()
				client.rest()
			}
			client.Close()
			far.Close()
		}()
	}
	seen := map[uint64]bool{}
	for range n {
		r := g.report()
		if seen[r.Tunnel] {
			t.Errorf("two reports of tunnel %d", r.Tunnel)
		}
		seen[r.Tunnel] = true
	}
	g.tunnels(0)
}

// TestOrdersStayInOrder: what is asked of a tunnel while it does what was asked of
// it before is done after that.
func TestOrdersStayInOrder(t *testing.T) {
	var done []int
	var asking sync.WaitGroup
	tunnel := new(slipswitch.Tunnel)
	tunnel.Do(func() {
		asking.Go(func() { tunnel.Do(func() { done = append(done, 3) }) })
		for range 1000 {
			runtime.Gosched()
		}
		done = append(done, 1)
	})
	tunnel.Do(func() { done = append(done, 2) })
	tunnel.CarriedBy()
	asking.Wait()
	if !slices.Equal(done, []int{1, 2, 3}) {
		t.Errorf("done in the order %v", done)
	}
}
