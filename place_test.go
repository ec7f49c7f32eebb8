package slipswitch_test

import (
	"io"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestOpenDuringAChange: while the places of a batch are being told of it, which
// may take a moment, nothing that its routes have opened is ended as if by the
// table before.
func TestOpenDuringAChange(t *testing.T) {
	t.Parallel()
	for name, deleted := range map[string]bool{"moved": false, "put again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			was, is := tunneling(t), tunneling(t)
			r := route("/b", was)
			r.OnUpstreamRemoved = slipswitch.ClosePolicy{Close: true}
			g := startGateway(t, new(slipswitch.Proxy), route("/a", was), r)
			if deleted {
				g.open("/b", was) // for which the place is kept
				deletes(slipswitch.Key{Host: host, Path: "/b"})(g, r, nil)
			}
			r.Upstreams, r.OnDelete = slipswitch.To(is.url), slipswitch.ClosePolicy{Close: true}
			release := slipswitch.HoldPlace(g.Router, slipswitch.Key{Host: host, Path: "/a"})
			published := make(chan struct{})
			go func() {
				defer close(published)
				g.put(route("/a", is), r)
			}()
			var opened [][2]*peer
			for range 20 { // the last of them surely are in time
				client := g.dial()
				client.send(handshake("/b"))
				if a := client.answer("GET"); a.StatusCode != 101 {
					continue // nothing stands there yet
				}
				select {
				case far := <-is.opened:
					opened = append(opened, [2]*peer{client, far})
				case <-was.opened: // the table before leads there
				}
			}
			release()
			<-published
			client, far := g.open("/b", is)
			for _, ends := range append(opened, [2]*peer{client, far}) {
				carries(ends[0], ends[1])
			}
		})
	}
}

// TestActivityNeverGoesBack, not even in the moment in which a tunnel's becomes
// its place's.
func TestActivityNeverGoesBack(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	entry, _ := g.Router.Table().At(slipswitch.Key{Host: host, Path: "/a"})
	var over atomic.Bool
	var looking sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		looking.Go(func() {
			for last := entry.LastActive(); !over.Load(); {
				now := entry.LastActive()
				if now.Before(last) {
					t.Errorf("%v after %v", now, last)
					return
				}
				last = now
			}
		})
	}
	for range 30 {
		client, far := g.open("/a", u)
		carries(client, far)
		client.Close()
		far.Close()
		g.report()
	}
	over.Store(true)
	looking.Wait()
}

// TestEndDuringABatch: a tunnel whose route is deleted ends, is reported, and
// keeps no other waiting, however long somebody takes to put routes.
func TestEndDuringABatch(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u), route("/b", u))
	n := 2 * runtime.GOMAXPROCS(0) // each loop of the engine has some of both
	var ending, staying [][2]*peer
	for range n {
		client, far := g.open("/a", u)
		ending = append(ending, [2]*peer{client, far})
		client, far = g.open("/b", u)
		staying = append(staying, [2]*peer{client, far})
	}
	deletes(slipswitch.Key{Host: host, Path: "/a"})(g, route("/a", u), nil)
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		g.Router.Update(func(tx *slipswitch.Txn) error {
			close(begun)
			<-end
			return io.EOF
		})
	}()
	<-begun
	for _, ends := range ending {
		ends[0].Close()
		ends[1].Close()
	}
	for range n {
		g.report()
	}
	for _, ends := range staying {
		carries(ends[0], ends[1])
	}
	close(end)
	<-ended
	until(t, "the place is forgotten", func() bool { return slipswitch.Kept(g.Router) == 0 })
}

// TestRouteChangesDuringHandshake: a tunnel is at the place that there is when it
// opens, under the options of what stands there.
func TestRouteChangesDuringHandshake(t *testing.T) {
	t.Parallel()
	key := slipswitch.Key{Host: host, Path: "/a"}
	remove := deletes(key)
	for name, later := range map[string]bool{"deleted, put again": false, "deleted, put again later": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, answer := make(chan struct{}), make(chan struct{})
			u := startScript(t, func(u *upstream, p *peer) bool {
				p.request()
				asked <- struct{}{}
				<-answer
				_, err := io.WriteString(p.TCPConn, switching())
				return err == nil
			})
			r := route("/a", u)
			g := startGateway(t, new(slipswitch.Proxy), r)
			var clients []*peer
			for range 3 {
				client := g.dial()
				client.send(handshake("/a"))
				receive(t, "the upstream is asked", asked)
				clients = append(clients, client)
				remove(g, r, nil)
				g.put(r) // at a place of its own: of the former nobody knows
			}
			if later {
				remove(g, r, nil)
			}
			close(answer)
			for _, client := range clients {
				if a := client.answer("GET"); a.StatusCode != 101 {
					t.Fatalf("got %s", a.Status)
				}
			}
			if later {
				g.put(r)
			}
			if entry, _ := g.Router.Table().At(key); entry.Tunnels() != len(clients) {
				t.Errorf("%d tunnels are at the route; want %d", entry.Tunnels(), len(clients))
			}
			r.IdleTimeout = time.Millisecond
			g.put(r)
			for _, client := range clients {
				client.leave()
				u.tunnel().leave()
			}
			for range clients {
				g.wantCause("GT", "gateway", "timeout", "idle")
			}
		})
	}
	t.Run("other options", func(t *testing.T) {
		t.Parallel()
		u := tunneling(t)
		r := route("/a", u)
		var g *gateway
		g = startGateway(t, &slipswitch.Proxy{TunnelValue: func(*http.Request) any {
			r.IdleTimeout = time.Millisecond
			g.put(r)
			return nil
		}}, r)
		client, far := g.open("/a", u)
		client.leave()
		far.leave()
		g.wantCause("GT", "gateway", "timeout", "idle")
	})
}
