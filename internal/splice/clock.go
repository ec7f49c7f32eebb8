package splice

import (
	"sync"
	"time"
)

// A timing wheel: one goroutine for the deadlines of all tunnels, none of which needs to be kept to the millisecond.
//
// A deadline stands in the slot of its tick, modulo the number of slots. An entry is not moved when its deadline
// is put off, which any byte does; it is called at the old one and enters itself again. So a byte costs nothing here.

const (
	tick  = 50 * time.Millisecond
	slots = 1024
)

// before is how long before a clock was started its time began: tunnels come to it that were opened elsewhere.
const before = 10 * 365 * 24 * time.Hour

// clock is a running wheel. It counts time in nanoseconds.
type clock struct {
	base time.Time
	wall time.Time     // what the wall clock said at base
	kick chan struct{} // an entry is due earlier than the goroutine thinks
	quit chan struct{}

	mu    sync.Mutex
	slots [slots]*entry
	done  int64 // ticks that have been called
	next  int64 // tick the goroutine sleeps for
}

// entry is a place in the wheel. due is 0 while it is in none.
type entry struct {
	due        int64 // tick
	prev, next *entry
	expire     func() // called on the clock's goroutine; must not block
}

func startClock() *clock {
	base := time.Now().Add(-before)
	c := &clock{base: base, wall: base.Round(0), kick: make(chan struct{}, 1), quit: make(chan struct{})}
	go c.run()
	return c
}

func (c *clock) stop() { close(c.quit) }

// now is the time since the clock's began, never 0.
func (c *clock) now() int64 { return int64(time.Since(c.base)) + 1 }

// span returns a time that lasts, short enough that a clock time and some of them can be added: a century stands for all
// that is longer.
func span(d time.Duration) int64 { return int64(min(d, 100*365*24*time.Hour)) }

// at turns what now returned into a time, by the wall clock as it goes now: it may have been set since the start.
func (c *clock) at(now int64) time.Time {
	if now == 0 {
		return time.Time{}
	}
	at := c.base.Add(time.Duration(now - 1))
	if set := time.Now().Round(0).Sub(c.wall) - time.Since(c.base); set.Abs() > time.Second {
		return at.Round(0).Add(set)
	}
	return at
}

// wake has the entry called at the given time, or up to a tick later, unless it is to be called earlier anyway.
func (c *clock) wake(e *entry, at int64) {
	due := at/int64(tick) + 1
	c.mu.Lock()
	defer c.mu.Unlock()
	due = max(due, c.done+1)
	if e.due != 0 {
		if e.due <= due {
			return
		}
		c.remove(e)
	}
	e.due = due
	head := &c.slots[due%slots]
	e.prev, e.next = nil, *head
	if *head != nil {
		(*head).prev = e
	}
	*head = e
	if due < c.next {
		c.next = due
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

// forget takes the entry out. A call that has begun is not waited for.
func (c *clock) forget(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.due != 0 {
		c.remove(e)
	}
}

func (c *clock) remove(e *entry) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		c.slots[e.due%slots] = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	e.due, e.prev, e.next = 0, nil, nil
}

// run calls what is due until the clock is stopped.
func (c *clock) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var due []*entry
	for {
		due = c.collect(due[:0])
		for i, e := range due {
			due[i] = nil
			e.expire()
		}
		timer.Reset(c.sleep())
		select {
		case <-timer.C:
		case <-c.kick:
		case <-c.quit:
			return
		}
	}
}

// collect takes out all entries that are due.
func (c *clock) collect(due []*entry) []*entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now() / int64(tick)
	// After a long sleep one round sees every slot.
	for t := max(c.done, now-slots) + 1; t <= now; t++ {
		for e := c.slots[t%slots]; e != nil; {
			next := e.next
			if e.due <= now {
				c.remove(e)
				due = append(due, e)
			}
			e = next
		}
	}
	c.done = max(c.done, now)
	return due
}

// sleep returns how long nothing can be due. Entries later than a round of the wheel may shorten it needlessly.
func (c *clock) sleep() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = c.done + slots
	for t := c.done + 1; t < c.done+slots; t++ {
		if c.slots[t%slots] != nil {
			c.next = t
			break
		}
	}
	return time.Duration(c.next*int64(tick) - c.now())
}
