package gateways

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// handshakes: connect, upgrade, and leave by a reset as soon as the 101 is
// there; 16 at a time.
var handshakes = &scenario{
	name:     "handshakes",
	routes:   []int{10},
	weight:   9,
	patience: 20 * time.Second,
	measure: func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error) {
		pids := g.pids()
		before, begin := run.CPU(pids), time.Now()
		var done atomic.Int64
		err := inParallel(16, func(worker int) error {
			for time.Since(begin) < s.during(time.Second) {
				conn, err := openTunnel(ctx, g.addr, s.routes[worker%len(s.routes)]+"/socket")
				if err != nil {
					return err
				}
				conn.Close()
				done.Add(1)
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		count := float64(done.Load())
		values := run.Values{"per second": count / time.Since(begin).Seconds()}
		if g.pid != 0 {
			values["CPU µs"] = float64((run.CPU(pids) - before).Nanoseconds()) / 1000 / count
		}
		return values, nil, nil
	},
}
