package gateways

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
	"golang.org/x/sync/errgroup"
)

// storm: requests as in the open loop of requests, while other workspaces come
// and go, 1,000 changes a second; before that without them. A peer that reloads
// is told once a second what has changed since.
var storm = &scenario{
	name:     "storm",
	routes:   []int{10_000},
	weight:   40,
	changes:  true,
	patience: 60 * time.Second,
	measure: func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error) {
		values := run.Values{}
		h, err := s.openLoop(ctx, g, requestRate, s.during(time.Second))
		if err != nil {
			return nil, nil, err
		}
		latency(values, "quiet ", h.all)

		stop := make(chan struct{})
		var changing errgroup.Group
		var applied int
		begin := time.Now()
		changing.Go(func() (err error) {
			applied, err = s.changeRoutes(ctx, g, 1000, stop)
			return err
		})
		h, err = s.openLoop(ctx, g, requestRate, s.during(3*time.Second))
		close(stop)
		if changeErr := changing.Wait(); err == nil {
			err = changeErr
		}
		if err != nil {
			return nil, nil, err
		}
		latency(values, "", h.all)
		values["worst ms"] = float64(h.all.Max()) / 1e6
		values["changes per second"] = float64(applied) / time.Since(begin).Seconds()
		return values, nil, nil
	},
}

// newRoutes counts those that scenarios have made.
var newRoutes atomic.Int64

// changeRoutes puts new routes and deletes them, alternately, so many changes a
// second, until stop is closed. It returns how many the peer has taken.
func (s *site) changeRoutes(ctx context.Context, g *gateway, rate int, stop <-chan struct{}) (applied int, err error) {
	every := 10 * time.Millisecond
	if g.reloads {
		every = s.during(time.Second)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var old []string
	for begin := time.Now(); ; {
		select {
		case <-tick.C:
		case <-stop:
			return applied, nil
		}
		due := int(time.Since(begin).Seconds()*float64(rate)) - applied
		var put []string
		for len(put) < due-len(old) {
			put = append(put, s.newRoute())
		}
		deleted := old[:min(due, len(old))]
		if err := g.change(ctx, put, deleted); err != nil {
			return applied, err
		}
		applied += len(put) + len(deleted)
		old = append(old[len(deleted):], put...)
	}
}
