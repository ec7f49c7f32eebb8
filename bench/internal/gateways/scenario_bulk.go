package gateways

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// bulk: messages from the upstream to the client on 4 tunnels, as fast as they
// go, of several sizes.
var bulk = &scenario{
	name:     "bulk",
	routes:   []int{10},
	weight:   26,
	patience: 60 * time.Second,
	measure: func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error) {
		values := run.Values{}
		for _, size := range bulkSizes {
			total := 96 << 20
			if size < 16<<10 {
				total = 32 << 20
			}
			if s.short {
				total /= 8
			}
			cpu, took, err := s.bulk(ctx, g, size, total)
			if err != nil {
				return nil, nil, err
			}
			gib := float64(total) / (1 << 30)
			if g.pid != 0 {
				values[fmt.Sprintf("CPU s/GiB at %d KiB", size>>10)] = cpu.Seconds() / gib
			}
			values[fmt.Sprintf("GiB/s at %d KiB", size>>10)] = gib / took.Seconds()
		}
		return values, nil, nil
	},
}

var bulkSizes = []int{1 << 10, 16 << 10, 128 << 10, 1 << 20}

func (s *site) bulk(ctx context.Context, g *gateway, size, total int) (cpu, took time.Duration, err error) {
	const tunnels = 4
	conns, err := openTunnels(ctx, g.addr, s.routes, tunnels)
	if err != nil {
		return 0, 0, err
	}
	defer closeAll(conns)
	pids := g.pids()
	before, begin := run.CPU(pids), time.Now()
	err = inParallel(tunnels, func(i int) error {
		count := max(1, total/size/tunnels)
		if err := ask(conns[i], count, size); err != nil {
			return err
		}
		length := int64(count) * int64(len(frame(binaryMessage, size, false)))
		_, err := io.CopyBuffer(discard{}, io.LimitReader(conns[i], length), make([]byte, 256<<10))
		return err
	})
	return run.CPU(pids) - before, time.Since(begin), err
}

// discard is io.Discard without a ReadFrom of its own, whose buffer is small.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
