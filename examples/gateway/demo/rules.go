package demo

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Rules are routes whose upstream follows from the request: a workspace that
// sleeps until somebody visits it, and one route for all services, whose names
// are in the path.
type rules struct {
	services string // the address of all of them, in this demo

	asleep string // the sleeping workspace's upstream

	mu    sync.Mutex
	wakes time.Time // when the upstream is awake; zero: nobody has visited it
}

// wakeTime is how long the sleeping workspace takes to wake.
const wakeTime = 3 * time.Second

const (
	alanPath    = "/webapp-01/ide-alan"
	servicePath = "/service"
)

func (x *rules) routes() []slipswitch.Route {
	return []slipswitch.Route{
		{Path: alanPath, StripPath: true, Resolve: true, IdleTimeout: idleTimeout, Labels: map[string]string{"demo": "sleeper"}},
		// Without Resolve the names would be looked up, and {1} alone would be
		// allowed only because of the list, which here is everything.
		{Path: servicePath, StripPath: true, Resolve: true, Upstreams: slipswitch.To("http://{1:*}"), Labels: map[string]string{"demo": "service"}},
	}
}

// Resolve is for Resolver.Resolve of the Proxy.
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

// wake starts to wake the workspace, which takes a while.
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

// visitService is the page of a service.
func visitService(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "The service at %s, asked for %s.\n", r.Header.Get("X-Forwarded-Prefix"), r.URL.Path)
}
