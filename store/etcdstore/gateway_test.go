package etcdstore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/etcdstore"
)

// A gateway is a router that follows a store.
type gateway struct {
	*store.Sync
	t *testing.T
}

func newGateway(t *testing.T, s *etcdstore.Store, name ...string) *gateway {
	t.Helper()
	return follow(t, &store.Sync{Source: s, Router: new(slipswitch.Router), Gateway: strings.Join(name, "")})
}

// follow runs the Sync, and returns when it has all.
func follow(t *testing.T, s *store.Sync) *gateway {
	t.Helper()
	g := &gateway{s, t}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	wait, stop := contextFor(t, 20*time.Second)
	defer stop()
	if err := g.Wait(wait, 0); err != nil {
		t.Fatalf("%v; status %+v", err, g.Status())
	}
	return g
}

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// waitAll waits until all gateways that have joined have what this one has.
func (g *gateway) waitAll() {
	g.t.Helper()
	ctx, cancel := contextFor(g.t, 10*time.Second)
	defer cancel()
	if err := g.WaitAll(ctx, g.Status().Revision); err != nil {
		g.t.Error(err)
	}
}

// routes returns the table as texts "key=upstream".
func (g *gateway) routes() (routes []string) {
	for e := range g.Router.Table().All() {
		routes = append(routes, fmt.Sprintf("%s=%s", e.Key(), strings.TrimPrefix(e.Route().Upstreams[0].URL, "http://")))
	}
	return routes
}

func (g *gateway) want(want ...string) {
	g.t.Helper()
	if got := g.routes(); !slices.Equal(got, want) {
		g.t.Errorf("the table has %v; want %v", got, want)
	}
}

// await waits for a state of the Sync, and looks again whenever that has a new
// status, and every now and then.
func (g *gateway) await(state func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !state() {
		if time.Now().After(deadline) {
			g.t.Fatalf("the state does not come; status %+v, %d routes", g.Status(), g.Router.Table().Len())
		}
		ctx, cancel := contextFor(g.t, 20*time.Millisecond)
		g.Wait(ctx, g.Status().Revision+1)
		cancel()
	}
}
