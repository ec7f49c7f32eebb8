package slipswitch_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// TestStorm: while sockets come and go, routes move, are deleted and put again,
// and tunnels are drained and closed: each client that has had a 101 is reported
// once, and others never; no tunnel is ended by a change that does not concern it;
// and none outlives one that does.
func TestStorm(t *testing.T) {
	t.Parallel()
	u := startScript(t, func(u *upstream, p *peer) bool {
		if _, err := p.request(); err == nil {
			io.WriteString(p.TCPConn, switching())
			for f := (frame{}); err == nil && f.opcode != 8; f, err = p.frame() {
			}
		}
		return false
	})
	const routes, openers, each = 3, 6, 40
	var mu sync.Mutex
	at := make([]int, routes)   // which upstream each route leads to
	gone := make([]int, routes) // those up to which are or are being removed
	had := map[string]int{}     // the routes of the sockets that have a 101
	told := map[string]int{}    // how many reports each has

	where := func(upstream string) (route, n int) {
		if _, err := fmt.Sscanf(upstream, "http://r%d-u%d.example", &route, &n); err != nil {
			t.Errorf("an upstream %q: %v", upstream, err)
		}
		return route, n
	}
	ending := slipswitch.ClosePolicy{Close: true}
	stands := func(i int) slipswitch.Route {
		return slipswitch.Route{Host: host, Path: fmt.Sprintf("/%d", i), OnDelete: ending, OnUpstreamRemoved: ending,
			Upstreams: slipswitch.To(fmt.Sprintf("http://r%d-u%d.example", i, at[i]))}
	}
	p, _ := dialled(u)
	p.Limits = slipswitch.Limits{Tunnels: 1000, TunnelsPerRoute: 1000, TunnelsPerClient: 1000, Handshakes: 1000, HandshakesPerRoute: 1000}
	p.TunnelValue = func(r *http.Request) any { return r.Header.Get("X-Socket") }
	p.TunnelClosed = func(r slipswitch.CloseReport) {
		mu.Lock()
		defer mu.Unlock()
		told[r.Value.(string)]++
		route, n := where(r.Upstream)
		if (r.Why == slipswitch.WhyRouteDeleted || r.Why == slipswitch.WhyUpstreamRemoved) && n > gone[route] {
			t.Errorf("%s: a tunnel to %s is ended, and only those up to %d are gone", r.Why, r.Upstream, gone[route])
		}
	}
	g := startGateway(t, p)
	for i := range routes {
		gone[i] = -1
		g.put(stands(i))
	}

	var opening, open sync.WaitGroup
	for o := range openers {
		opening.Go(func() {
			for n := range each {
				socket := fmt.Sprintf("%d/%d", o, n)
				i := rand.IntN(routes)
				client := g.dial()
				client.send(handshake(fmt.Sprintf("/%d", i), "X-Socket: "+socket))
				head, _ := client.head()
				if !strings.HasPrefix(head, "HTTP/1.1 101 ") {
					client.Close()
					continue
				}
				mu.Lock()
				had[socket] = i
				mu.Unlock()
				if n%4 == 0 {
					client.Close()
					continue
				}
				open.Go(func() {
					defer client.Close()
					client.frame() // a Close, or the end
				})
			}
		})
	}
	over := make(chan struct{})
	go func() { opening.Wait(); close(over) }()
	for changing := true; changing; {
		select {
		case <-over:
			changing = false
		default:
		}
		i := rand.IntN(routes)
		mu.Lock()
		var before []string
		for socket, route := range had {
			if route == i {
				before = append(before, socket)
			}
		}
		mu.Unlock()
		switch what := rand.IntN(3); what {
		case 0:
			g.Drain(func(t *slipswitch.Tunnel) bool { return t.Route().Path == fmt.Sprintf("/%d", i) }, 0, 1001, "")
		default:
			mu.Lock()
			gone[i] = at[i]
			at[i]++
			mu.Unlock()
			if what == 1 {
				deletes(slipswitch.Key{Host: host, Path: fmt.Sprintf("/%d", i)})(g, slipswitch.Route{}, nil)
			}
			g.put(stands(i))
		}
		until(t, "all that were open before have ended", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return !slices.ContainsFunc(before, func(socket string) bool { return told[socket] == 0 })
		})
	}
	for tunnel := range g.Tunnels() {
		until(t, "none is left that leads to what is gone", func() bool {
			route, n := where(tunnel.Upstream())
			return n > gone[route] || !slices.Contains(slices.Collect(g.Tunnels()), tunnel)
		})
	}
	if err := g.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	open.Wait()
	for socket := range had {
		if told[socket] != 1 {
			t.Errorf("socket %s has %d reports", socket, told[socket])
		}
		delete(told, socket)
	}
	for socket := range told {
		t.Errorf("socket %s has a report, but no 101", socket)
	}
	until(t, "nothing is taken any more", func() bool { return slipswitch.Taken(p) == 0 && slipswitch.Kept(g.Router) == 0 })
}
