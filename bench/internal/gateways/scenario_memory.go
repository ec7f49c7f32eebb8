package gateways

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// memory: more and more tunnels that nobody uses; then each carries 64 KiB both
// ways and is left alone again. What is told is the slope.
var memory = &scenario{
	name:     "memory",
	routes:   []int{10},
	weight:   90,
	rounds:   1, // a process that has had tunnels keeps some of their memory for the next
	itself:   true,
	together: true,
	patience: 3 * time.Minute,
	measure: func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error) {
		steps, quiet := []int{0, 250, 500, 1000, 2000}, 8*time.Second
		if s.short {
			steps, quiet = []int{0, 100, 300}, 2*time.Second
		}
		var conns []*net.TCPConn
		defer func() { closeAll(conns) }()
		var series run.Series
		var first, descriptors int
		for i, n := range steps {
			more, err := openTunnels(ctx, g.addr, s.routes, n-len(conns))
			if err != nil {
				return nil, nil, fmt.Errorf("%d tunnels: %w", n, err)
			}
			conns = append(conns, more...)
			if err := rest(ctx, quiet); err != nil {
				return nil, nil, err
			}
			pids := g.pids()
			resident := run.Memory(pids)
			if i == 0 {
				first = run.Descriptors(pids)
			}
			descriptors = run.Descriptors(pids) - first
			series = append(series, [2]float64{float64(n), float64(resident)})
		}
		n := float64(len(conns))
		values := run.Values{
			"KiB cold":     slope(series) / 1024,
			"descriptors":  float64(descriptors) / n,
			"MiB at start": series[0][1] / (1 << 20),
		}
		sent, answer := frame(binaryMessage, 64<<10, true), len(frame(binaryMessage, 64<<10, false))
		err := inParallel(32, func(worker int) error {
			buffer := make([]byte, answer)
			for i := worker; i < len(conns); i += 32 {
				if err := exchange(conns[i], sent, buffer); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		if err := rest(ctx, 2*quiet); err != nil {
			return nil, nil, err
		}
		values["KiB after traffic"] = (float64(run.Memory(g.pids())) - series[0][1]) / 1024 / n
		return values, series, nil
	},
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slope is that of the line with the least squares. The first point is left
// out: what the first tunnel makes a program load is not for each of them.
func slope(points run.Series) float64 {
	var n, x, y, xx, xy float64
	for _, p := range points[1:] {
		n, x, y, xx, xy = n+1, x+p[0], y+p[1], xx+p[0]*p[0], xy+p[0]*p[1]
	}
	return (n*xy - x*y) / (n*xx - x*x)
}
