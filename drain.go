package slipswitch

import "context"

// Shutdown ends all tunnels with a FIN and waits until they are closed and
// their reports handed over, or until the context ends: then it returns its
// error, and what is left goes on by itself. From its begin on no tunnel is
// opened: upgrades are answered with 503. Plain requests are http.Server's to
// shut down.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.start.Do(p.init)
	empty := p.tunnels.close()
	for t := range p.Tunnels() {
		t.pair.Close("shutdown", 0, "")
	}
	select {
	case <-empty:
	case <-ctx.Done():
		return ctx.Err()
	}
	if reported := p.reports.done(); reported != nil {
		select {
		case <-reported:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.dialer.closeIdle()
	return nil
}

// Draining reports whether Shutdown has begun.
func (p *Proxy) Draining() bool { return p.tunnels.closed() }
