package slipswitch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Errors that a Resolver may return. Either may be wrapped, for example in an
// [*Error] that tells the client more; the fields that it leaves zero get their
// usual values. Any other error is answered with 502.
var (
	// ErrNotFound is answered with 404.
	ErrNotFound = errors.New("slipswitch: no such upstream")

	// ErrAsleep is answered with 503 and Retry-After; a browser gets a page that
	// reloads itself. An Error that wraps it sets RetryAfter. Zero means 2 s.
	ErrAsleep = errors.New("slipswitch: the upstream is asleep")
)

const wakeInterval = 2 * time.Second

// A Resolver finds the upstream of a request while the request waits. For example,
// it wakes a workspace and waits until that listens. The Proxy calls it for each
// request to a route with Resolve set, after Middleware.
type Resolver struct {
	// Resolve returns the upstream. If it returns the zero Upstream, the request goes
	// to one of the route's own upstreams. Requests to the same route with the same
	// captured values share one call. So the match has only what they have in common:
	// its Path is the route's prefix.
	//
	// The context belongs to no request: it ends after Timeout, with Close, and
	// after Shutdown as soon as no request is in progress. The result is not kept.
	// Resolve may be called concurrently for different routes and values.
	Resolve func(ctx context.Context, m Match) (Upstream, error)

	// Timeout bounds a call, one that hangs too: its requests are answered with 504.
	// Zero means 30 s.
	Timeout time.Duration

	// MaxWaiting bounds the requests that wait, and the calls in progress. A
	// request beyond it is answered with 503. Zero means 10,000.
	MaxWaiting int

	// MaxWaitingPerCall bounds the requests that wait for one call, so that a crowd at
	// one workspace leaves room for the others. Zero means a tenth of MaxWaiting.
	MaxWaitingPerCall int

	calls   singleflight.Group
	running atomic.Int64 // calls in progress

	mu      sync.Mutex
	waiting int            // requests
	crowds  map[string]int // the number that wait for each call, by its key
}

// Waiting returns how many requests wait now.
func (r *Resolver) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

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

func (r *Resolver) maxWaitingPerCall() int {
	if r.MaxWaitingPerCall > 0 {
		return r.MaxWaitingPerCall
	}
	return max(1, r.maxWaiting()/10)
}

// targets returns the targets of a match: at least one.
func (p *Proxy) targets(ctx context.Context, m Match) ([]target, error) {
	targets, err := m.expandAll()
	if err != nil || !m.options().Resolve {
		return targets, err
	}
	if p.Resolver == nil {
		return nil, errors.New("the route is to be resolved, and Proxy.Resolver is nil")
	}
	upstream, err := p.Resolver.resolve(ctx, p, m)
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

// resolve waits for the call in progress for this match, or for a new one.
func (r *Resolver) resolve(ctx context.Context, p *Proxy, m Match) (Upstream, error) {
	values, err := m.values()
	if err != nil {
		return Upstream{}, ErrNotFound
	}
	// A changed route has another leaf. The call keeps the leaf alive, so its address
	// is not reused meanwhile.
	key := fmt.Sprintf("%p %v", m.leaf, values)
	if limit := r.enter(key); limit != "" {
		return Upstream{}, p.overLimit(limit, manyWait, wakeInterval)
	}
	defer r.leave(key)
	answer := r.calls.DoChan(key, func() (any, error) { return r.call(p, m.common()) })
	select {
	case result := <-answer:
		upstream, _ := result.Val.(Upstream)
		return upstream, result.Err
	case <-ctx.Done():
		return Upstream{}, ctx.Err()
	}
}

const manyWait = "too many requests wait"

// enter adds a request that waits, or returns the name of the limit that it exceeds.
func (r *Resolver) enter(key string) (limit string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.waiting >= r.maxWaiting():
		return "waiting"
	case r.crowds[key] >= r.maxWaitingPerCall():
		return "waitingPerCall"
	}
	r.waiting++
	count(&r.crowds, key, 1)
	return ""
}

func (r *Resolver) leave(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
	count(&r.crowds, key, -1)
}

// common returns the match without what differs among requests that share a call.
func (m Match) common() Match {
	m.Path, _ = m.split()
	return m
}

// An answer is what Resolve returned.
type answer struct {
	upstream Upstream
	err      error
}

// lastAnswer is the time after a call's timeout in which Resolve may still return an
// error that says more.
const lastAnswer = time.Second

// call calls Resolve, in a context that belongs to no request: each may leave.
func (r *Resolver) call(p *Proxy, m Match) (Upstream, error) {
	if r.running.Add(1) > int64(r.maxWaiting()) { // with calls that hang, or whose requests have left
		r.running.Add(-1)
		return Upstream{}, p.overLimit("waiting", manyWait, wakeInterval)
	}
	ctx, cancel := context.WithTimeout(p.life, r.timeout())
	defer cancel()
	answered := make(chan answer, 1)
	go r.ask(ctx, m, answered)
	select {
	case a := <-answered:
		return a.upstream, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-answered:
		if a.err != nil {
			a.err = errors.Join(ctx.Err(), a.err)
		}
		return a.upstream, a.err
	case <-time.After(lastAnswer):
		return Upstream{}, ctx.Err()
	}
}

// ask has a goroutine of its own, since Resolve may hang, panic, or end it.
func (r *Resolver) ask(ctx context.Context, m Match, answered chan<- answer) {
	defer r.running.Add(-1)
	a := answer{err: errors.New("the resolver has ended its goroutine")}
	defer func() {
		if v := recover(); v != nil {
			a.err = fmt.Errorf("the resolver has panicked: %v\n%s", v, debug.Stack())
		}
		answered <- a
	}()
	a.upstream, a.err = r.Resolve(ctx, m)
}

// resolveError returns the answer to a resolver's error.
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
