package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// 200 sockets on 20 workspaces send and receive while 5,000 routes change by
// REST: none closes, and each byte arrives, in order.
func TestRouteChangesCutNoSocket(t *testing.T) {
	const workspaces, each = 20, 10
	g := start(t)
	server := newIDE(t)
	before := g.descriptors()

	path := func(workspace int) string { return fmt.Sprintf("/webapp-01/ide-%02d", workspace) }
	route := func(path string, version int) slipswitch.Route {
		return slipswitch.Route{Path: path, StripPath: true, Upstreams: slipswitch.To(server.URL),
			IdleTimeout: 2 * time.Minute, Labels: map[string]string{"version": fmt.Sprint(version)}}
	}
	var own []slipswitch.Route
	for i := range workspaces {
		own = append(own, route(path(i), 0))
	}
	g.put(own...)
	var sockets []*numberSocket
	for range each {
		for i := range workspaces {
			sockets = append(sockets, newNumberSocket(t, "ws://"+g.public+path(i)+"/numbers"))
		}
	}

	changed := changeRoutes(t, g, route, own)
	goOn(t, sockets)
	var status struct {
		Version         uint64
		Routes, Tunnels int
	}
	g.must("GET", "/v1/status", nil, &status)
	if status.Tunnels != len(sockets) || status.Routes != workspaces+100 {
		t.Errorf("%d tunnels, %d routes; want %d, %d", status.Tunnels, status.Routes, len(sockets), workspaces+100)
	}
	if closed, _ := g.logged("tunnel closed"); len(closed) > 0 {
		t.Errorf("closed: %v", closed)
	}
	t.Logf("%d route changes, version %d", changed, status.Version)

	// A route is deleted under its open sockets, and put again.
	address := "/v1/route?path=" + url.QueryEscape(path(0))
	g.must("DELETE", address, nil, nil)
	if response, _, err := g.get(path(0) + "/"); err != nil || response.StatusCode != http.StatusNotFound {
		t.Errorf("without its route: %v, %v; want 404", response, err)
	}
	if _, response, err := websocket.Dial(t.Context(), "ws://"+g.public+path(0)+"/numbers", nil); err == nil || response.StatusCode != http.StatusNotFound {
		t.Errorf("a socket without its route: %v, %v; want 404", response, err)
	}
	var list struct{ Tunnels []struct{} }
	g.must("GET", "/v1/tunnels?path="+url.QueryEscape(path(0)), nil, &list)
	if len(list.Tunnels) != each {
		t.Errorf("%d tunnels at the deleted route; want %d", len(list.Tunnels), each)
	}
	var under []*numberSocket
	for i := range each {
		under = append(under, sockets[i*workspaces])
	}
	goOn(t, under)
	g.must("PUT", address, route(path(0), 1), nil)
	put := time.Now()
	var item struct {
		LastActive time.Time
		Tunnels    int
	}
	programtest.Eventually(t, "its sockets count as activity of the route that was put again", func() bool {
		g.must("GET", address, nil, &item)
		return item.LastActive.After(put) && item.Tunnels == each
	})
	goOn(t, under)

	for _, s := range sockets {
		close(s.stop)
	}
	for i, s := range sockets {
		if err := programtest.Receive(t, "a socket ends", s.failed); err != nil {
			t.Errorf("socket %d: %v", i, err)
		}
	}
	programtest.Eventually(t, "each socket has its close report", func() bool {
		closed, _ := g.logged("tunnel closed")
		return len(closed) == len(sockets)
	})
	closed, _ := g.logged("tunnel closed")
	for _, report := range closed {
		if report["by"] != "client" {
			t.Errorf("close report %v; want one by the client", report)
		}
	}
	client.CloseIdleConnections()
	programtest.Eventually(t, "the gateway has given its descriptors back", func() bool { return g.descriptors() <= before+4 })
}

// changeRoutes makes 5,000 changes, in four goroutines, of all kinds, and
// returns how many. 100 routes besides own are left.
func changeRoutes(t *testing.T, g *process, route func(string, int) slipswitch.Route, own []slipswitch.Route) int {
	t.Helper()
	const workers, rounds, batch = 4, 10, 75
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			do := func(method, path string, body any) {
				if _, err := g.call(method, path, body, nil); err != nil {
					t.Error(err)
				}
			}
			other := func(i int) string { return fmt.Sprintf("/webapp-01/other-%d-%d", w, i) }
			at := func(path string) string { return "/v1/route?path=" + url.QueryEscape(path) }
			for round := range rounds {
				for i := range 15 { // added, replaced, deleted
					do("PUT", at(other(i)), route(other(i), 0))
					do("PUT", at(other(i)), route(other(i), 1))
					do("DELETE", at(other(i)), nil)
				}
				for _, r := range own[w*5 : w*5+5] { // replaced under their sockets
					do("PUT", at(r.Path), route(r.Path, round+1))
				}
				var changes []slipswitch.Change // many at once
				for i := range batch {
					put := route(other(100+i), round)
					changes = append(changes, slipswitch.Change{Put: &put})
				}
				if round%2 == 1 {
					changes = changes[:0]
					for i := range batch {
						changes = append(changes, slipswitch.Change{Delete: &slipswitch.Key{Path: other(100 + i)}})
					}
				}
				do("POST", "/v1/batch", map[string]any{"changes": changes})
			}
		})
	}
	wg.Wait()
	// All other routes are replaced.
	var changes []slipswitch.Change
	for i := range 100 {
		put := route(fmt.Sprintf("/webapp-02/ide-%d", i), 0)
		changes = append(changes, slipswitch.Change{Put: &put})
	}
	for _, r := range own {
		changes = append(changes, slipswitch.Change{Put: &r})
	}
	g.must("POST", "/v1/batch", map[string]any{"changes": changes, "replace": true}, nil)
	return workers*rounds*(15*3+5+batch) + 100
}
