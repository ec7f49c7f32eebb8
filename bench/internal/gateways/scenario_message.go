package gateways

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// message: messages of 64 bytes, to and fro on 64 tunnels. A closed loop for what
// each takes; then an open one for how long a round trip is.
var message = &scenario{
	name:     "message",
	routes:   []int{10},
	weight:   18,
	patience: 20 * time.Second,
	measure: func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error) {
		const tunnels, rate = 64, 2000
		conns, err := openTunnels(ctx, g.addr, s.routes, tunnels)
		if err != nil {
			return nil, nil, err
		}
		defer closeAll(conns)
		sent := frame(binaryMessage, 64, true)

		pids := g.pids()
		before, begin := run.CPU(pids), time.Now()
		var done atomic.Int64
		err = inParallel(tunnels, func(i int) error {
			answer, n := make([]byte, len(frame(binaryMessage, 64, false))), int64(0)
			for ; time.Since(begin) < s.during(800*time.Millisecond); n += 2 {
				if err := exchange(conns[i], sent, answer); err != nil {
					return err
				}
			}
			done.Add(n)
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

		h, begin := new(histograms), time.Now().Add(10*time.Millisecond)
		err = inParallel(tunnels, func(i int) error {
			answer := make([]byte, len(frame(binaryMessage, 64, false)))
			own, pace := newHistogram(), newPace(begin, rate, i, tunnels)
			for n := 0; time.Since(begin) < s.during(time.Second); n++ {
				from := pace.wait(n)
				if err := exchange(net.Conn(conns[i]), sent, answer); err != nil {
					return err
				}
				own.RecordValue(int64(time.Since(from)))
			}
			h.add(own)
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		latency(values, "", h.all)
		return values, nil, nil
	},
}
