package slipswitch

import "github.com/slipswitch/slipswitch/internal/splice"

// This file is the seam to the engine: two connections in, one end out.

// run hands a tunnel's connections to the engine. The tunnel may have finished
// when it returns.
func (t *Tunnel) run(c splice.Config) {
	c.Ended = t.finish
	t.reauthorizeLater()
	t.carriedBy(t.proxy.engine.Start(c))
}

// finish is called once, when both connections are closed.
func (t *Tunnel) finish(end splice.End) {
	t.mu.Lock()
	t.ended = true
	if t.recheck != nil {
		t.recheck.Stop()
	}
	t.mu.Unlock()
	t.place.use(t.proxy.lastActive(end.Stats))
	t.choice.end()
	t.place.leave(t.proxy.Router, t)
	t.proxy.leave(t.seat, &t.proxy.seats.tunnels) // whoever hears of the end finds the seat free
	t.proxy.reports.add(t.report(end))
	t.proxy.tunnels.leave(t) // for which Shutdown waits, and then for the reports
}
