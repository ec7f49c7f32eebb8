package splice

import (
	"sync/atomic"
	"time"
)

// A side whose machine has vanished acknowledges nothing. The kernel goes on sending for a quarter of an hour what it has for
// it, during which its own keep-alive probes rest. So while a tunnel has traffic, the wheel has its carrier look, four times
// in an AckTimeout, at what each side has acknowledged.
//
// A side that is there but reads nothing is none of these: its kernel answers each probe for room. That is why
// TCP_USER_TIMEOUT is no way: it takes both for the same.
//
//	bytes ──► looked after ── nothing outstanding, and no more bytes ──► not looked after
//	               └── something outstanding, none of it acknowledged, and sent again in vain ──► gone
type acks struct {
	watched atomic.Bool  // somebody is to look
	due     atomic.Int64 // when
	asked   atomic.Bool  // the carrier is to look now

	// Of whoever looks:
	looked int64    // when it did
	since  [2]int64 // since when a side has acknowledged nothing of what there is for it; 0: there is nothing
}

// ack is how far a side's kernel has come with what was sent to it.
type ack struct {
	outstanding bool  // not all is acknowledged
	last        int64 // how long ago anything was
	sent        int64 // how long ago any of it was sent, maybe again
	tries       uint8 // how often the kernel has counted since: not what is sent again to a side without room
}

// silent reports whether enough was tried in vain to call it silence: three times, or once a while after the last
// acknowledgement and with a second for the answer.
func (k ack) silent(while int64) bool {
	return k.tries >= 3 || k.last-k.sent >= while && k.sent >= int64(time.Second)
}

// sent has the sides looked after while there is traffic.
func (p *Pair) sent(now int64) {
	if a := &p.acks; p.ackTimeout > 0 && !a.watched.Load() && a.watched.CompareAndSwap(false, true) {
		a.due.Store(now + p.ackTimeout/4)
		p.machine.clock.wake(&p.timer, a.due.Load())
	}
}

// checkAcks has the carrier look when it is due. Only the clock's goroutine calls it.
func (p *Pair) checkAcks(now int64) {
	a := &p.acks
	if !a.watched.Load() {
		return
	}
	if a.due.Load() <= now {
		a.due.Store(now + p.ackTimeout/4)
		a.asked.Store(true)
		p.carrier.look()
	}
	p.machine.clock.wake(&p.timer, a.due.Load())
}

// vanished returns a side that is gone, if the carrier was to look. Calls do not overlap.
func (p *Pair) vanished(now int64, look func(Side) ack) (side Side, gone bool) {
	a := &p.acks
	if !a.asked.Swap(false) {
		return 0, false
	}
	busy := false
	for side := range a.since {
		k, since := look(Side(side)), &a.since[side]
		switch {
		case !k.outstanding:
			*since = 0
		case *since == 0 || k.last < now-*since:
			*since, busy = now, true
		case now-*since >= p.ackTimeout/4*3 && k.silent(p.ackTimeout/4):
			return Side(side), true
		default:
			busy = true
		}
	}
	moved := func() bool {
		return max(p.flows[Client].lastData.Load(), p.flows[Upstream].lastData.Load()) >= a.looked
	}
	if !busy && !moved() {
		a.watched.Store(false)
		if moved() { // meanwhile
			p.sent(now)
		}
	}
	a.looked = now
	return 0, false
}
