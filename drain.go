package slipswitch

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// Close closes the tunnel: each side gets a WebSocket Close frame with the code
// and reason between two frames from the other side, and nothing after it. Close
// returns at once. The tunnel has ended 12 s later: each side has 5 s to come to
// the end of a frame, 5 s to answer, and 2 s to close its connection. An opaque
// tunnel is closed without a Close frame.
//
// The code must be 1000 to 1003, 1007 to 1014, or 3000 to 4999; with any other
// Close does nothing and returns an error. Zero means the usual code of the close
// report's Why: 1012 (service restart) for [WhyUpstreamRemoved] and
// [WhyShutdown], 1008 (policy violation) for [WhyLoginExpired], and 1001 (going
// away) for all others. The reason is cut to 123 bytes of valid UTF-8. An empty
// reason means the text of Why.
//
// Why is [WhyAdmin], unless the tunnel is ending already: the first cause stays.
func (t *Tunnel) Close(code uint16, reason string) error {
	if err := checkCode(code); err != nil {
		return err
	}
	t.close(WhyAdmin, code, reason)
	return nil
}

// maxReason is how long a close reason may be, in bytes (RFC 6455 §5.5).
const maxReason = 123

// validCode reports whether a close code may be sent (RFC 6455 §7.4), or is zero:
// the usual one.
func validCode(code uint16) bool {
	return code == 0 || code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}

const wantCode = "must be a close code that may be sent: 1000 to 1003, 1007 to 1014, or 3000 to 4999; or 0 for the usual one"

func checkCode(code uint16) error {
	if !validCode(code) {
		return fmt.Errorf("slipswitch: code %d %s", code, wantCode)
	}
	return nil
}

// close closes the tunnel as Close does, for any reason. It does not block.
func (t *Tunnel) close(why Why, code uint16, reason string) {
	usual := uint16(1001) // going away
	switch why {
	case WhyShutdown, WhyUpstreamRemoved:
		usual = 1012 // service restart: clients come back
	case WhyLoginExpired:
		usual = 1008 // policy violation
	}
	t.do(func(pair *splice.Pair) { pair.Close(splice.Why(why), cmp.Or(code, usual), cmp.Or(reason, string(why))) })
}

// Drain closes the open tunnels for which filter returns true, as [Tunnel.Close]
// does, and returns how many these are. A nil filter means all. Their Why is
// [WhyDrain]. Tunnels that are opened later are not closed.
//
// The closes come in random order, evenly spread over the window, but at least
// ten a second. A window of zero closes all at once. Drain does not wait for them.
// Drains may overlap: a tunnel is closed by the first that comes to it. The error
// is that of an invalid code.
func (p *Proxy) Drain(filter func(*Tunnel) bool, window time.Duration, code uint16, reason string) (n int, err error) {
	if err := checkCode(code); err != nil {
		return 0, err
	}
	var tunnels []*Tunnel
	for t := range p.Tunnels() {
		if filter == nil || filter(t) {
			tunnels = append(tunnels, t)
		}
	}
	go spread(nil, tunnels, window, func(t *Tunnel) { t.close(WhyDrain, code, reason) })
	return len(tunnels), nil
}

// Shutdown closes all tunnels, as [Tunnel.Close] does with zeros, and waits until
// they have ended, and until their reports and what there was to log are handed
// over. Their Why is [WhyShutdown]. As soon as Shutdown is called no tunnel is
// opened: upgrades are answered with 503. Plain requests are left to
// http.Server's Shutdown. Health checks and calls of Proxy.Resolver end when
// Shutdown has returned and no request is in progress.
//
// The closes are evenly spread over three quarters of the time up to the
// context's deadline, or 30 s if it has none, but at least ten a second: so the
// clients do not all come back at once.
//
// When the context ends, the tunnels that are left are cut off. Shutdown then
// returns the context's error, as soon as all reports are handed over, or a
// second later.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.start.Do(p.init)
	defer p.endUnused()
	empty := p.tunnels.close()
	window := 30 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		window = time.Until(deadline) / 4 * 3
	}
	returned := make(chan struct{})
	defer close(returned)
	go spread(returned, p.tunnels.all(), window, (*Tunnel).shutDown)
	var cut error
	select {
	case <-empty:
	case <-ctx.Done():
		cut = ctx.Err()
		for t := range p.Tunnels() {
			t.do(func(pair *splice.Pair) { pair.Cut(splice.Why(WhyShutdown)) })
		}
	}
	late := make(chan struct{})
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastReports, func() { close(late) }) })()
	for _, done := range []func() <-chan struct{}{func() <-chan struct{} { return empty }, p.reports.done, p.journal.Done} {
		select {
		case <-done():
		case <-late:
			return ctx.Err()
		}
	}
	p.transports.close()
	return cut
}

// endUnused ends the Proxy's life as soon as no request is in progress.
func (p *Proxy) endUnused() {
	p.seats.mu.Lock()
	defer p.seats.mu.Unlock()
	p.seats.last = p.end
	p.seats.endUnused()
}

// lastReports is how long Shutdown waits for reports when its time is over.
const lastReports = time.Second

// Close is [Proxy.Shutdown] without pace, and without waiting: all tunnels are
// closed at once, and have ended 12 s later. Health checks and calls of
// Proxy.Resolver end.
func (p *Proxy) Close() {
	p.start.Do(p.init)
	defer p.end()
	p.tunnels.close()
	for t := range p.Tunnels() {
		t.shutDown()
	}
}

func (t *Tunnel) shutDown() { t.close(WhyShutdown, 0, "") }

// Draining reports whether Shutdown or Close has begun.
func (p *Proxy) Draining() bool { return p.tunnels.closed() }

// slowest is the longest time between two closes.
const slowest = 100 * time.Millisecond

// spread calls close for each tunnel, in random order, until stop is closed. Each
// has an equal share of the window, in which its moment is random: so the load
// is even, and no two gateways that drain together keep step.
func spread(stop <-chan struct{}, tunnels []*Tunnel, window time.Duration, close func(*Tunnel)) {
	rand.Shuffle(len(tunnels), func(i, j int) { tunnels[i], tunnels[j] = tunnels[j], tunnels[i] })
	share := min(window/time.Duration(max(len(tunnels), 1)), slowest)
	begin := time.Now()
	for i, t := range tunnels {
		if t.hasEnded() {
			continue
		}
		if share > 0 {
			select {
			case <-time.After(time.Until(begin.Add(time.Duration(i)*share + rand.N(share)))):
			case <-stop:
				return
			}
		}
		close(t)
	}
}
