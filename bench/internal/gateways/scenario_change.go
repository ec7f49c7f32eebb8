package gateways

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// change: a workspace is created, and asked for until it answers, over a new
// connection each time. That a peer has been told is the first half of it.
var change = &scenario{
	name:     "change",
	routes:   []int{10, 10_000},
	weight:   12,
	changes:  true,
	patience: 60 * time.Second,
	measure: func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error) {
		var took []float64
		begin := time.Now()
		for len(took) < 20 && (len(took) == 0 || time.Since(begin) < s.during(1200*time.Millisecond)) {
			route := s.newRoute()
			start := time.Now()
			if err := g.change(ctx, []string{route}, nil); err != nil {
				return nil, nil, err
			}
			for {
				c := client{addr: g.addr}
				status, err := c.status(ctx, request(route+"/"))
				c.close()
				if err == nil && status == 200 {
					break
				}
				if err := rest(ctx, 200*time.Microsecond); err != nil {
					return nil, nil, fmt.Errorf("no 200 for a new route: %w", err)
				}
			}
			took = append(took, time.Since(start).Seconds()*1000)
		}
		slices.Sort(took)
		return run.Values{"ms": took[len(took)/2], "slowest ms": took[len(took)-1]}, nil, nil
	},
}

// newRoute returns one that there has never been.
func (s *site) newRoute() string { return run.Path(1_000_000 + int(newRoutes.Add(1))) }
