package demo

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Rules are routes that say how to find an upstream, not which: a workspace
// that sleeps until somebody looks, and one route for all services, whose names
// are in the path.
type rules struct {
	services string // where all of them are, in this demo

	asleep string // the sleeping workspace's upstream

	mu    sync.Mutex
	wakes time.Time // when that is awake; zero: nobody has looked
}

// wakeTime is how long a workspace that sleeps takes to wake.
const wakeTime = 3 * time.Second

const (
	alanPath    = "/webapp-01/ide-alan"
	servicePath = "/service"
)

func (x *rules) routes() []slipswitch.Route {
	return []slipswitch.Route{
		{Path: alanPath, StripPath: true, Resolve: true, IdleTimeout: idleTimeout, Labels: map[string]string{"demo": "sleeper"}},
		// Without Resolve the names would be looked up: {1} alone only because
		// of the list, which here is everything.
		{Path: servicePath, StripPath: true, Resolve: true, Upstreams: slipswitch.To("http://{1:*}"), Labels: map[string]string{"demo": "service"}},
	}
}

// Resolve is the proxy's: Resolver.Resolve.
func (d *Demo) Resolve(_ context.Context, m slipswitch.Match) (slipswitch.Upstream, error) {
	x := &d.rules
	switch demo, _ := m.Label("demo"); demo {
	case "service":
		return slipswitch.Upstream{URL: x.services}, nil
	case "sleeper":
		return x.wake()
	}
	return slipswitch.Upstream{}, slipswitch.ErrNotFound
}

// wake begins to wake the workspace, which takes a while.
func (x *rules) wake() (slipswitch.Upstream, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	if x.wakes.IsZero() {
		x.wakes = now.Add(wakeTime)
	}
	if left := x.wakes.Sub(now); left > 0 {
		return slipswitch.Upstream{}, &slipswitch.Error{Status: http.StatusServiceUnavailable,
			Reason: "Alan's workspace was asleep", RetryAfter: min(left, time.Second), Err: slipswitch.ErrAsleep}
	}
	return slipswitch.Upstream{URL: x.asleep}, nil
}

// visitService is what one finds at a service.
func visitService(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "The service at %s, asked for %s.\n", r.Header.Get("X-Forwarded-Prefix"), r.URL.Path)
}
