package splice

import (
	"sync/atomic"
	"time"
)

// Pair is a tunnel that is being carried. Its methods may be called from any goroutine, also after its end.
type Pair struct {
	machine *machine
	carrier carrier
	ended   func(End)
	flows   [2]flow // by the side the bytes come from

	opened                                   int64
	idleTimeout                              atomic.Int64
	stallTimeout, lifeTimeout, lingerTimeout int64
	ackTimeout                               int64
	acks                                     acks

	timer    entry
	pings    atomic.Pointer[pings] // nil: never any
	cause    atomic.Pointer[Cause]
	order    atomic.Pointer[order]
	half     atomic.Pointer[half]
	aborting atomic.Bool // a side is broken, and the other still gets what is on its way
	cut      atomic.Bool // it is to end at once
}

// carrier is what moves a tunnel's bytes.
type carrier interface {
	// poke makes the carrier look at the pair's order and at deadlines of its own. It does not block.
	poke()
	// look makes the carrier look whether the client is due a ping, or has left one unanswered, and whether a side has
	// vanished. It does not block.
	look()
	// rest makes the carrier give back what a quiet tunnel needs no more. It returns when to ask again, or 0.
	rest(now int64) (again int64)
}

// half is a tunnel's state after one side has ended.
type half struct {
	by Side
	at int64
}

const lingerDefault = 30 * time.Second

func newPair(m *machine, c Config) *Pair {
	p := &Pair{
		machine:       m,
		ended:         c.Ended,
		opened:        m.clock.now(),
		stallTimeout:  span(c.StallTimeout),
		lifeTimeout:   span(c.LifeTimeout),
		lingerTimeout: span(c.LingerTimeout),
		ackTimeout:    span(c.AckTimeout),
	}
	if p.lingerTimeout == 0 {
		p.lingerTimeout = int64(lingerDefault)
	}
	p.idleTimeout.Store(span(c.IdleTimeout))
	p.timer.expire = p.expire
	for side := range p.flows {
		p.flows[side].init(p, Side(side), c.Opaque, c.ActivitySize)
	}
	if c.PingEvery > 0 {
		ps := new(pings)
		ps.every.Store(span(c.PingEvery))
		ps.patience.Store(span(c.PongTimeout))
		p.pings.Store(ps)
	}
	return p
}

// Stats returns the tunnel's counters.
func (p *Pair) Stats() Stats {
	var s Stats
	for side := range p.flows {
		s.From[side] = p.flows[side].snapshot(p.machine.clock)
	}
	return s
}

// SetIdleTimeout changes the idle timeout of the open tunnel; zero means none.
// When it is over already, the tunnel ends.
func (p *Pair) SetIdleTimeout(d time.Duration) {
	p.idleTimeout.Store(span(d))
	p.arm()
}

// Close ends the tunnel on purpose and returns at once; it reports whether it was the first cause of the end.
//
// With a code, each side gets a Close frame between two frames of what the other side sends, and nothing after it; where
// no such place comes within 5 s, or the flow is opaque, or a Close frame has gone that way already, there is none.
// A side then has 5 s to answer before its connection is shut down for writing, and 2 s from there to
// shut down its own before it is reset. With code 0 there are no frames.
// The code must be one that may be sent: 1000 to 1003, 1007 to 1014, 3000 to 4999; the reason is cut to 123 bytes.
func (p *Pair) Close(why Why, code uint16, reason string) bool {
	first := p.fail(Cause{By: Gateway, How: Policy, Why: why})
	p.end(code, reason)
	return first
}

// Cut ends the tunnel at once, also when it is ending already: what is on its way is lost. A side that has had its Close
// frame is shut down, any other reset, so that it does not take what it has for all.
func (p *Pair) Cut(why Why) {
	p.fail(Cause{By: Gateway, How: Policy, Why: why})
	p.cut.Store(true)
	p.order.CompareAndSwap(nil, &order{at: p.machine.clock.now()})
	p.carrier.poke()
}

// end gives the order to end, unless it has been given.
func (p *Pair) end(code uint16, reason string) {
	if p.order.CompareAndSwap(nil, &order{code, reason, p.machine.clock.now()}) {
		p.carrier.poke()
	}
}

// fail records the cause of the end, unless there is one.
func (p *Pair) fail(c Cause) bool {
	return p.cause.Load() == nil && p.cause.CompareAndSwap(nil, &c)
}

// halve notes that a side has ended, by FIN or Close frame, and starts the linger.
func (p *Pair) halve(by Side, now int64) {
	if p.half.CompareAndSwap(nil, &half{by, now}) {
		p.arm()
	}
}

// note looks whether what the flow took ends the tunnel: a Close frame does.
func (p *Pair) note(f *flow, now int64) {
	if f.closed() && p.cause.Load() == nil {
		p.fail(Cause{By: f.from, How: CloseFrame})
		p.halve(f.from, now)
	}
}

// deadline returns the earliest time at which one of the pair's clocks can run out, or 0, and which.
func (p *Pair) deadline(now int64) (at int64, why Why) {
	earliest := func(since, timeout int64, reason Why) {
		if timeout > 0 && (at == 0 || since+timeout < at) {
			at, why = since+timeout, reason
		}
	}
	moved := max(p.opened, p.flows[Client].lastData.Load(), p.flows[Upstream].lastData.Load())
	earliest(moved, p.idleTimeout.Load(), WhyIdle)
	earliest(p.opened, p.lifeTimeout, WhyLife)
	for i := range p.flows {
		since := p.flows[i].stalled.Load()
		if since == 0 {
			since = now // so that a stall needs no entry in the wheel when it begins
		}
		earliest(since, p.stallTimeout, WhyStall)
	}
	if h := p.half.Load(); h != nil {
		earliest(max(h.at, moved), p.lingerTimeout, WhyLinger)
	}
	return at, why
}

// arm sets the pair's timer to its earliest clock.
func (p *Pair) arm() {
	if at, _ := p.deadline(p.machine.clock.now()); at > 0 {
		p.machine.clock.wake(&p.timer, at)
	}
	if at, _ := p.pulse(); at > 0 {
		p.machine.clock.wake(&p.timer, at)
	}
}

// expire looks at the pair's clocks, on the goroutine of the machine's.
func (p *Pair) expire() {
	if p.order.Load() != nil || p.aborting.Load() {
		p.carrier.poke()
		return
	}
	now := p.machine.clock.now()
	if again := p.carrier.rest(now); again != 0 {
		p.machine.clock.wake(&p.timer, again)
	}
	p.checkAcks(now)
	if at, _ := p.pulse(); at > 0 {
		if at <= now {
			p.carrier.look()
			at = now + p.pings.Load().every.Load() // if nothing comes of it yet
		}
		p.machine.clock.wake(&p.timer, at)
	}
	at, why := p.deadline(now)
	switch {
	case at == 0:
	case at > now:
		p.machine.clock.wake(&p.timer, at)
	case why == WhyLinger:
		p.fail(Cause{By: p.half.Load().by, How: FIN, Why: why})
		p.end(0, "")
	default:
		p.fail(Cause{By: Gateway, How: Timeout, Why: why})
		p.end(1001, string(why)+" timeout")
	}
}

// finish reports the end, once, after both connections have been closed and nothing touches the flows any more.
func (p *Pair) finish() {
	m := p.machine
	m.clock.forget(&p.timer)
	end := End{
		Cause:  *p.cause.Load(),
		Opened: m.clock.at(p.opened),
		Closed: m.clock.at(m.clock.now()),
		Stats:  p.Stats(),
	}
	for side := range p.flows {
		s := &end.Seen[side]
		s.Code, s.Reason, s.Frame = p.flows[side].frames.Closed()
	}
	m.engine.leave()
	if p.ended != nil {
		p.ended(end)
	}
}
