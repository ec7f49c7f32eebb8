package slipswitch

import "github.com/slipswitch/slipswitch/internal/splice"

// This file is the seam to the engine: two connections in, one end out.

// run hands a tunnel's connections to the engine.
func (t *Tunnel) run(c splice.Config) {
	var end splice.End
	c.Ended = func(e splice.End) {
		end = e
		if !t.state.CompareAndSwap(tunnelStarting, tunnelEnded) {
			t.finish(e)
		}
	}
	t.carriedBy(t.proxy.engine.Start(c))
	t.reauthorizeLater()
	if !t.state.CompareAndSwap(tunnelStarting, tunnelOpen) {
		t.finish(end)
	}
}

// finish is called once, when both connections are closed.
func (t *Tunnel) finish(end splice.End) {
	t.state.Store(tunnelEnded)
	if t.recheck != nil {
		t.recheck.Stop()
	}
	t.place.use(t.proxy.lastActive(end.Stats))
	t.choice.end()
	t.place.leave(t.proxy.Router, t)
	t.proxy.reports.add(t.report(end))
	t.proxy.seats.leave(seatOf(t.place.key, t.client))
	t.proxy.tunnels.leave(t)
}
