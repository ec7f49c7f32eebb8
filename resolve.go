package slipswitch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// What a Resolver may answer instead of an upstream; either may be wrapped, in
// an [*Error] for one, which says more to the client: what it leaves zero is as
// usual. All else is a 502.
var (
	// ErrNotFound is answered with 404.
	ErrNotFound = errors.New("slipswitch: no such upstream")

	// ErrAsleep is answered with 503 and Retry-After, browsers with a page that
	// reloads itself. An Error around it sets after how long: 2 s if it does not.
	ErrAsleep = errors.New("slipswitch: the upstream is asleep")
)

const wakeInterval = 2 * time.Second

// A Resolver finds out, while a request waits, where a route leads: it wakes a
// workspace, say, and waits until it listens. It is asked for each request to
// a route with Resolve set, behind Middleware.
type Resolver struct {
	// Resolve returns the upstream, or the zero Upstream: then the route's own
	// are taken, which may be there by now. Requests to the same route with the
	// same captured values that come while it is at it share its answer, so the
	// match has their common part only: as Path, the route's prefix.
	//
	// Its context is nobody's request's: it ends after Timeout, and with Shutdown
	// or Close. What it returns is not kept. It may be called concurrently for
	// different routes and values.
	Resolve func(ctx context.Context, m Match) (Upstream, error)

	// Timeout bounds a call. Zero: 30 s.
	Timeout time.Duration

	// MaxWaiting bounds the requests that wait, and the calls in progress.
	// Beyond it the answer is 503. Zero: 10,000.
	MaxWaiting int

	calls   singleflight.Group
	running atomic.Int64 // calls
	waiting atomic.Int64 // requests
}

// Waiting returns how many requests wait now.
func (r *Resolver) Waiting() int { return int(r.waiting.Load()) }

func (r *Resolver) timeout() time.Duration {
	if r.Timeout > 0 {
		return r.Timeout
	}
	return 30 * time.Second
}

func (r *Resolver) maxWaiting() int {
	if r.MaxWaiting > 0 {
		return r.MaxWaiting
	}
	return 10_000
}

// leads returns where a match leads: at least one target.
func (p *Proxy) leads(ctx context.Context, m Match) ([]target, error) {
	targets, err := m.expandAll()
	if err != nil || !m.Route.Resolve {
		return targets, err
	}
	if p.Resolver == nil {
		return nil, errors.New("the route is to be resolved, and Proxy.Resolver is nil")
	}
	upstream, err := p.Resolver.resolve(ctx, p.life, m)
	if err != nil {
		return nil, resolveError(err)
	}
	if upstream.URL == "" && len(targets) > 0 {
		return targets, nil
	}
	t, err := upstream.parse()
	if err == nil && t.template != nil {
		err = errors.New("must be no template")
	}
	if err != nil {
		return nil, fmt.Errorf("the resolver's upstream %q %w", upstream.URL, err)
	}
	return []target{t}, nil
}

// resolve waits for the call that is in progress, or a new one.
func (r *Resolver) resolve(ctx, life context.Context, m Match) (Upstream, error) {
	values, err := m.captured()
	if err != nil {
		return Upstream{}, ErrNotFound
	}
	if !r.enter(&r.waiting) {
		return Upstream{}, errManyWaiting
	}
	defer r.waiting.Add(-1)
	// A route that was changed is another leaf, and the call keeps its leaf's
	// address from being used again.
	key := fmt.Sprintf("%p %v", m.leaf, values)
	answer := r.calls.DoChan(key, func() (any, error) { return r.call(life, m.common()) })
	select {
	case result := <-answer:
		upstream, _ := result.Val.(Upstream)
		return upstream, result.Err
	case <-ctx.Done():
		return Upstream{}, ctx.Err()
	}
}

var errManyWaiting = &Error{Status: http.StatusServiceUnavailable, Reason: "too many requests wait", RetryAfter: wakeInterval}

// enter counts one more, unless there are MaxWaiting already.
func (r *Resolver) enter(count *atomic.Int64) bool {
	for {
		n := count.Load()
		if n >= int64(r.maxWaiting()) {
			return false
		}
		if count.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// common returns what all matches have that are of the same route and have
// captured the same.
func (m Match) common() Match {
	m.Path, _ = m.split()
	return m
}

// call asks Resolve. Its context is not a request's: whoever waits may leave.
func (r *Resolver) call(life context.Context, m Match) (upstream Upstream, err error) {
	if !r.enter(&r.running) { // of requests that have left
		return Upstream{}, errManyWaiting
	}
	defer r.running.Add(-1)
	ctx, cancel := context.WithTimeout(life, r.timeout())
	defer cancel()
	defer func() {
		if v := recover(); v != nil { // singleflight would end the process
			err = fmt.Errorf("the resolver has panicked: %v\n%s", v, debug.Stack())
		}
	}()
	upstream, err = r.Resolve(ctx, m)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return upstream, err
}

// resolveError says what a resolver's error means to the client.
func resolveError(err error) error {
	usual := Error{Status: http.StatusBadGateway, Reason: "the upstream cannot be found", Err: err}
	e, said := errors.AsType[*Error](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && !said:
		return err
	case errors.Is(err, ErrNotFound):
		usual.Status, usual.Reason = http.StatusNotFound, "no route"
	case errors.Is(err, ErrAsleep):
		usual.Status, usual.Reason, usual.RetryAfter = http.StatusServiceUnavailable, "it has been asleep", wakeInterval
	}
	if said {
		return &Error{cmp.Or(e.Status, usual.Status), cmp.Or(e.Reason, usual.Reason), cmp.Or(e.RetryAfter, usual.RetryAfter), e.Err}
	}
	return &usual
}
