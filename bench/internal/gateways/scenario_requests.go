package gateways

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// requests: GETs of a page of 1 KiB on all routes, over kept connections. A
// closed loop for how many there can be and what each takes; then an open one,
// of as many a second as all can serve, for how long they take.
var requests = &scenario{
	name:     "requests",
	routes:   []int{10, 10_000},
	weight:   17,
	patience: 20 * time.Second,
	measure: func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error) {
		if _, _, err := s.closedLoop(ctx, g, s.during(200*time.Millisecond)); err != nil { // to have all connections
			return nil, nil, err
		}
		pids := g.pids()
		before := run.CPU(pids)
		count, took, err := s.closedLoop(ctx, g, s.during(900*time.Millisecond))
		if err != nil {
			return nil, nil, err
		}
		used := run.CPU(pids) - before
		values := run.Values{"per second": float64(count) / took.Seconds()}
		if g.pid != 0 {
			values["CPU µs"] = float64(used.Nanoseconds()) / 1000 / float64(count)
		}
		h, err := s.openLoop(ctx, g, requestRate, s.during(900*time.Millisecond))
		if err != nil {
			return nil, nil, err
		}
		latency(values, "", h.all)
		return values, nil, nil
	},
}

const (
	requestConns = 32
	requestRate  = 800 // a second, in open loops
)

// closedLoop sends requests over some connections, each when the last is
// answered.
func (s *site) closedLoop(ctx context.Context, g *gateway, during time.Duration) (count int64, took time.Duration, err error) {
	var done atomic.Int64
	begin := time.Now()
	err = inParallel(requestConns, func(worker int) error {
		c := client{addr: g.addr}
		defer c.close()
		random := rand.New(rand.NewPCG(uint64(worker), 1))
		n := int64(0)
		for time.Since(begin) < during {
			if err := c.get(ctx, s.routes[random.IntN(len(s.routes))]); err != nil {
				return err
			}
			n++
		}
		done.Add(n)
		return nil
	})
	return done.Load(), time.Since(begin), err
}

// openLoop sends requests at their times.
func (s *site) openLoop(ctx context.Context, g *gateway, rate int, during time.Duration) (*histograms, error) {
	h, begin := new(histograms), time.Now().Add(10*time.Millisecond)
	return h, inParallel(requestConns, func(worker int) error {
		c := client{addr: g.addr}
		defer c.close()
		random := rand.New(rand.NewPCG(uint64(worker), 2))
		own, pace := newHistogram(), newPace(begin, rate, worker, requestConns)
		// The first request of a connection is not counted: it connects.
		for i := -1; i < 0 || time.Since(begin) < during; i++ {
			from := time.Now()
			if i >= 0 {
				from = pace.wait(i)
			}
			if err := c.get(ctx, s.routes[random.IntN(len(s.routes))]); err != nil {
				return err
			}
			if i >= 0 {
				own.RecordValue(int64(time.Since(from)))
			}
		}
		h.add(own)
		return nil
	})
}

// get wants a page from a route.
func (c *client) get(ctx context.Context, route string) error {
	status, err := c.status(ctx, request(route+"/static/app.js"))
	if err == nil && status != 200 {
		err = fmt.Errorf("GET %s: %d", route, status)
	}
	return err
}
