package slipswitch

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// Close ends the tunnel: each side gets a WebSocket Close frame with the code
// and reason between two frames of what the other side sends, and nothing after
// it. It returns at once; the end comes within 12 s, as each side has 5 s to
// come to the end of its frame, 5 s to answer, and 2 s to close. A tunnel that
// is opaque ends without such a frame.
//
// The code is 1000 to 1003, 1007 to 1014, or 3000 to 4999, else nothing is done
// and the error says so; the reason is cut to 123 bytes of valid UTF-8. The
// report's Why is [WhyAdmin], unless the tunnel is ending already: the first
// cause stays.
func (t *Tunnel) Close(code uint16, reason string) error {
	if err := checkCode(code); err != nil {
		return err
	}
	t.end(WhyAdmin, code, reason)
	return nil
}

func checkCode(code uint16) error {
	if !validCode(code) {
		return fmt.Errorf("slipswitch: code %d %s", code, wantCode)
	}
	return nil
}

// end ends the tunnel, with what is usual for a reason where code or text are
// zero. It does not block.
func (t *Tunnel) end(why Why, code uint16, text string) {
	usual := uint16(1001) // going away
	switch why {
	case WhyShutdown, WhyUpstreamRemoved:
		usual = 1012 // service restart: clients come back
	case WhyLoginExpired:
		usual = 1008 // policy violation
	}
	t.do(func(pair *splice.Pair) { pair.Close(splice.Why(why), cmp.Or(code, usual), cmp.Or(text, string(why))) })
}

// Drain ends the tunnels for which filter returns true (nil: all), and returns
// how many these are. It does not wait for them: they are closed one after the
// other, in random order, evenly over the window, as [Tunnel.Close] does it, for
// the reason [WhyDrain]. A window so long that it takes fewer than ten tunnels a
// second is cut. Drains may overlap: a tunnel ends with the first that comes to
// it. Tunnels that are opened later are not concerned.
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
	go spread(nil, tunnels, window, func(t *Tunnel) { t.end(WhyDrain, code, reason) })
	return len(tunnels), nil
}

// Shutdown ends all tunnels with the close code 1012 and waits until they are
// closed, and their reports and what there was to log handed over. When the context ends, what is left is
// cut off, and Shutdown returns the context's error as soon as all reports
// are handed over, or a second later. From its begin on no tunnel is opened:
// upgrades are answered with 503. Plain requests are http.Server's to shut down.
//
// The ends are spread evenly over three quarters of the time up to the context's
// deadline, or 30 s if it has none, and at least ten a second: whoever comes
// back is not to come back with all others.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.start.Do(p.init)
	defer p.end()
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
	p.dialer.closeIdle()
	return cut
}

// lastReports is how long Shutdown waits for reports when its time is over.
const lastReports = time.Second

// Close is Shutdown without pace, and without waiting: all tunnels begin to end
// at once, and have ended 12 s later. Checks, and calls of Proxy.Resolver, end.
func (p *Proxy) Close() {
	p.start.Do(p.init)
	defer p.end()
	p.tunnels.close()
	for t := range p.Tunnels() {
		t.shutDown()
	}
}

func (t *Tunnel) shutDown() { t.end(WhyShutdown, 0, "") }

// Draining reports whether Shutdown or Close has begun.
func (p *Proxy) Draining() bool { return p.tunnels.closed() }

// slowest is the least pace at which tunnels are ended.
const slowest = 100 * time.Millisecond

// spread calls end for each tunnel, in random order, until stop is closed. Each has an equal share of
// the window, in which its moment is random: so the load is even, and no two
// gateways that drain together keep step.
func spread(stop <-chan struct{}, tunnels []*Tunnel, window time.Duration, end func(*Tunnel)) {
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
		end(t)
	}
}
