package gateways

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// cuts: tunnels on all routes, nobody typing, while 20 other workspaces are
// created. The curve is how many have been closed, over the seconds since the
// first change.
var cuts = &scenario{
	name:     "cuts",
	routes:   []int{10},
	weight:   25,
	rounds:   1,
	changes:  true,
	together: true,
	patience: 2 * time.Minute,
	measure: func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error) {
		const tunnels, changes = 64, 20
		conns, err := openTunnels(ctx, g.addr, s.routes, tunnels)
		if err != nil {
			return nil, nil, err
		}
		defer closeAll(conns)
		begin := time.Now()
		var mu sync.Mutex
		var ends []float64 // seconds
		var all sync.WaitGroup
		for _, conn := range conns {
			all.Go(func() {
				if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					mu.Lock()
					defer mu.Unlock()
					ends = append(ends, time.Since(begin).Seconds())
				}
			})
		}
		processes, every := 0, s.during(500*time.Millisecond)
		for range changes {
			if err == nil {
				err = g.change(ctx, []string{s.newRoute()}, nil)
			}
			if err == nil {
				err = rest(ctx, every)
			}
			processes = max(processes, len(g.pids()))
		}
		if err == nil {
			err = rest(ctx, s.grace+s.during(2*time.Second))
		}
		for _, conn := range conns {
			conn.SetReadDeadline(time.Now())
		}
		all.Wait()
		if err != nil {
			return nil, nil, err
		}
		slices.Sort(ends)
		series := run.Series{{0, 0}}
		for i, at := range ends {
			if i+1 == len(ends) || ends[i+1] > at+0.02 { // those that close together are one point
				series = append(series, [2]float64{at, float64(i + 1)})
			}
		}
		// Those that are left have to work still.
		cut := tunnels
		sent, answer := frame(binaryMessage, 64, true), make([]byte, len(frame(binaryMessage, 64, false)))
		for _, conn := range conns {
			conn.SetDeadline(time.Now().Add(patience))
			if exchange(conn, sent, answer) == nil {
				cut--
			}
		}
		series = append(series, [2]float64{time.Since(begin).Seconds(), float64(cut)})
		return run.Values{"cut": float64(cut), "of": tunnels, "processes": float64(processes)}, series, nil
	},
}
