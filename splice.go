package slipswitch

import "github.com/slipswitch/slipswitch/internal/splice"

// This file is where a tunnel meets the engine: two connections go in, orders
// and statistics pass, one end comes out.

// run hands a tunnel's connections to the engine. The tunnel may have finished
// when it returns.
func (t *Tunnel) run(c splice.Config) {
	c.Ended = t.finish
	t.reauthorizeLater()
	t.carriedBy(t.proxy.engine.Start(c))
}

// finish is called once, after both connections are closed.
func (t *Tunnel) finish(end splice.End) {
	t.mu.Lock()
	t.ended = true
	if t.recheck != nil {
		t.recheck.Stop()
	}
	t.mu.Unlock()
	t.place.use(t.proxy.lastActive(end.Stats))
	t.lease.End()
	t.place.leave(t.proxy.Router, t)
	t.proxy.leave(t.seat, &t.proxy.seats.tunnels) // before the report: a hook finds the seat free
	t.proxy.reports.add(t.report(end))
	t.proxy.tunnels.leave(t) // Shutdown waits for that, and then for the reports
}

func (t *Tunnel) stats() splice.Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pair == nil {
		return splice.Stats{}
	}
	return t.pair.Stats()
}

// do calls f, which must not block, with the pair that carries the tunnel: now,
// or as soon as there is one. The calls come one at a time, in order.
func (t *Tunnel) do(f func(*splice.Pair)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pair == nil {
		t.pending = append(t.pending, f)
		return
	}
	f(t.pair)
}

// carriedBy makes the pending calls of do.
func (t *Tunnel) carriedBy(pair *splice.Pair) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pair = pair
	for _, f := range t.pending {
		f(pair)
	}
	t.pending = nil
}

func trafficOf(s splice.Stats) Traffic {
	client, upstream := s.From[splice.Client], s.From[splice.Upstream]
	return Traffic{
		client.Bytes, client.Messages, upstream.Bytes, upstream.Messages,
		latest(client.LastData, upstream.LastData), latest(client.LastActive, upstream.LastActive),
	}
}
