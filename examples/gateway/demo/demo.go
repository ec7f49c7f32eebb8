// Package demo shows that sockets stay while routes change. It has two
// workspaces, in each of which several tabs edit one file, a page that shows all
// sockets of the gateway, and a button that creates and deletes a hundred other
// workspaces meanwhile. Each part has a server and a route of its own, and is
// served through the gateway.
package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A Demo runs from Start to Close. The fields must be set.
type Demo struct {
	Router *slipswitch.Router
	Proxy  *slipswitch.Proxy
	Log    *slog.Logger

	board board
	crowd crowd
	ender ender
	rules rules

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	servers []*process
}

// The paths of the demo. Each workspace is a route.
const (
	boardPath = "/board"
	adaPath   = "/webapp-01/ide-ada"
	gracePath = "/webapp-01/ide-grace"
	crowdPath = "/webapp-01/ide-" // followed by a random name
)

// Start starts the servers and puts their routes.
func (d *Demo) Start() error {
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.board.demo, d.crowd.demo = d, d
	d.crowd.init()
	board, err := d.start(&d.board)
	if err != nil {
		return err
	}
	routes := []slipswitch.Route{
		{Path: "/", Exact: true, Upstreams: slipswitch.To(board.url())},
		{Path: boardPath, StripPath: true, Upstreams: slipswitch.To(board.url()), IdleTimeout: idleTimeout},
	}
	for path, f := range map[string]*file{adaPath: hello(), gracePath: embedding()} {
		w := &workspace{board: &d.board, path: path, file: f, tabs: make(map[*tab]struct{})}
		server, err := d.start(w)
		if err != nil {
			return err
		}
		if path == gracePath {
			d.ender = ender{demo: d, path: path, server: server}
		}
		routes = append(routes, slipswitch.Route{
			Path: path, StripPath: true, Upstreams: slipswitch.To(server.url()),
			IdleTimeout: idleTimeout, Labels: map[string]string{"demo": "workspace"},
		})
	}
	alan := &workspace{board: &d.board, path: alanPath, file: hello(), tabs: make(map[*tab]struct{})}
	for _, s := range []struct {
		handler http.Handler
		url     *string
	}{
		{alan, &d.rules.asleep},
		{http.HandlerFunc(visitService), &d.rules.services},
		{http.HandlerFunc(d.crowd.visit), &d.crowd.upstream},
	} {
		server, err := d.start(s.handler)
		if err != nil {
			return err
		}
		*s.url = server.url()
	}
	routes = append(routes, d.rules.routes()...)
	if _, err := d.Router.Update(func(tx *slipswitch.Txn) error {
		for _, route := range routes {
			tx.Put(route)
		}
		return nil
	}); err != nil {
		return err
	}
	d.board.first = d.Router.Table().Version()
	d.running.Go(d.board.watch)
	return nil
}

// idleTimeout ends tunnels that carry not even pings any more.
const (
	idleTimeout = 2 * time.Minute
	pingEvery   = idleTimeout / 6
)

// start starts a server on this machine.
func (d *Demo) start(handler http.Handler) (*process, error) {
	p := &process{demo: d, handler: handler}
	d.servers = append(d.servers, p)
	return p, p.start()
}

// Welcome logs where to look.
func (d *Demo) Welcome(w io.Writer, url string) {
	fmt.Fprintf(w, `
  Routes change, sockets stay. Open

    %[1]s/                      all sockets, and the button
    %[1]s%[2]s/    a workspace: open it in several tabs, and type
    %[1]s%[3]s/  another one
    %[1]s%[4]s/   one that sleeps, and wakes when you look
    %[1]s%[5]s/web/          a service: one route for all, whatever its name

`, url, adaPath, gracePath, alanPath, servicePath)
}

// Close ends the servers and their sockets.
func (d *Demo) Close() {
	if d.cancel == nil {
		return
	}
	d.cancel()
	for _, server := range d.servers {
		server.close()
	}
	d.running.Wait()
}

// TunnelValue is for the Proxy's hook: it identifies a tunnel by its tab.
func (d *Demo) TunnelValue(r *http.Request) any {
	if id := r.URL.Query().Get("tab"); id != "" {
		return d.board.opens(id)
	}
	return nil // not a tunnel of the demo
}

// TunnelClosed must be called by the Proxy's hook.
func (d *Demo) TunnelClosed(r slipswitch.CloseReport) { d.board.tunnelClosed(r) }
