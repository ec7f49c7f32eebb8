package slipswitch

import (
	"context"
	"sync"
)

// Dials in progress are bounded, since each holds a descriptor and a request
// for as long as an upstream does not answer: one network that drops packets
// must not take all of both.
type dials struct {
	limits *Limits
	over   func(limit string) error

	mu     sync.Mutex
	all    int
	places map[*place]int // nil unless there is a limit
}

type placeKey struct{}

// withPlace says for which route a dial is.
func (d *dials) withPlace(ctx context.Context, p *place) context.Context {
	if d.limits.DialsPerRoute <= 0 {
		return ctx
	}
	return context.WithValue(ctx, placeKey{}, p)
}

// take begins a dial, which lasts until done is called, or returns why it may
// not begin.
func (d *dials) take(ctx context.Context) (done func(), err error) {
	if d.limits.Dials <= 0 && d.limits.DialsPerRoute <= 0 {
		return func() {}, nil
	}
	at, _ := ctx.Value(placeKey{}).(*place)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.limits.Dials > 0 && d.all >= d.limits.Dials:
		return nil, d.over("dials")
	case at != nil && d.places[at] >= d.limits.DialsPerRoute:
		return nil, d.over("dialsPerRoute")
	}
	d.all++
	if at != nil {
		count(&d.places, at, 1)
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.all--
		if at != nil {
			count(&d.places, at, -1)
		}
	}, nil
}
