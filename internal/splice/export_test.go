package splice

import "time"

// Clock is the timing wheel.
type Clock struct{ c *clock }

// Entry is an entry of the wheel.
type Entry struct{ entry }

func StartClock() Clock { return Clock{startClock()} }

func (c Clock) Stop() { c.c.stop() }

func (c Clock) Wake(e *Entry, after time.Duration) { c.c.wake(&e.entry, c.c.now()+int64(after)) }

func (c Clock) Forget(e *Entry) { c.c.forget(&e.entry) }

func NewEntry(expire func()) *Entry { return &Entry{entry{expire: expire}} }

const Tick = tick

// PingPayload is what pings of the tunnel carry; nil before the first.
func (p *Pair) PingPayload() []byte {
	if ps := p.pings.Load(); ps != nil && ps.ours.Load() {
		return ps.payload[:]
	}
	return nil
}

// Over reports whether a side of a tunnel that the portable pump carries has sent its Close frame or its end.
func (p *Pair) Over(side Side) bool {
	t := p.carrier.(*portable)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ends[side].over
}

// Cause is the cause of the tunnel's end; nil before it.
func (p *Pair) Cause() *Cause { return p.cause.Load() }

// At returns the time of now after the wall clock has been set back.
func (c Clock) At(back time.Duration) time.Time {
	c.c.wall = c.c.wall.Add(back)
	return c.c.at(c.c.now())
}
