// Package embedtest is one table of checks of a Proxy that is mounted in a
// server, for all the programs beside it.
package embedtest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// wait is how long a check waits for an event.
const wait = 20 * time.Second

// A Gateway is a server with a Proxy in it. It answers GET /hello with "hello"
// itself.
type Gateway struct {
	Addr   string             // host:port where it listens
	Router *slipswitch.Router // the Proxy's
}

// A Start starts a gateway for one test, and ends it with the test. With
// behindTimeout, an http.TimeoutHandler wraps the Proxy.
type Start func(t *testing.T, behindTimeout bool) *Gateway

// A Mount mounts a Proxy in a server's handler.
type Mount func(*slipswitch.Proxy) http.Handler

// start is a Start for an http.Handler.
func (mount Mount) start(t *testing.T, behindTimeout bool) *Gateway {
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	handler := mount(proxy)
	if behindTimeout {
		handler = http.TimeoutHandler(handler, time.Minute, "")
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		if err := proxy.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return &Gateway{Addr: server.Listener.Addr().String(), Router: proxy.Router}
}

// Check runs all checks against a handler with a Proxy in it. The checks named in
// breaks must fail: they document what a way of mounting breaks, for as long as
// it does.
func Check(t *testing.T, mount Mount, breaks ...string) { CheckStarted(t, mount.start, breaks...) }

// CheckStarted is Check for servers that are not an http.Handler.
func CheckStarted(t *testing.T, start Start, breaks ...string) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			u := startUpstream(t)
			g := start(t, c.behindTimeout)
			g.put(t, slipswitch.Route{Path: "/ide-7", StripPath: true, Upstreams: slipswitch.To(u.URL)})
			err := c.check(g, u)
			switch broken := slices.Contains(breaks, c.name); {
			case err != nil && !broken:
				t.Error(err)
			case err == nil && broken:
				t.Error("it works, but breaks names it")
			}
		})
	}
	for _, name := range breaks {
		if !slices.ContainsFunc(checks, func(c check) bool { return c.name == name }) {
			t.Errorf("there is no check %q", name)
		}
	}
}

func (g *Gateway) put(t *testing.T, route slipswitch.Route) {
	t.Helper()
	if err := g.update(func(tx *slipswitch.Txn) { tx.Put(route) }); err != nil {
		t.Fatal(err)
	}
}

func (g *Gateway) update(change func(*slipswitch.Txn)) error {
	_, err := g.Router.Update(func(tx *slipswitch.Txn) error {
		change(tx)
		return nil
	})
	return err
}
