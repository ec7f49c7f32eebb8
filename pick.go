package slipswitch

import (
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Of several upstreams the less loaded of two random ones is asked, the next
// when it cannot be reached. One that could not be reached is passed over for a
// while, at first for a second, unless there is no other; so is one that fails
// its check (check.go). (The least loaded of
// all would be overrun by all gateways at once when it has just come up.)
//
// A picker knows how loaded the addresses are, for all routes; only those that
// stand beside others in a route, since there is no choice otherwise.
type picker struct {
	proxy *Proxy

	mu    sync.Mutex
	loads map[address]*load
	sweep int // at so many, what has expired is thrown out

	checkers map[*place]*checker
	probes   map[probeKey]*probe
	checking errgroup.Group // at most maxChecking checks
}

type address struct {
	scheme scheme
	addr   string
}

type load struct {
	inUse    int // requests and tunnels
	failures int // in a row
	since    time.Time
	until    time.Time
	err      error // of the last failure
}

const maxEjection = 30 * time.Second

func (t *target) address() address { return address{t.scheme, t.addr} }

// next takes the next target to try, or nil.
func (c *candidates) next() *target {
	if len(c.targets) == 1 {
		if c.target != nil {
			return nil
		}
		c.target = &c.targets[0]
		return c.target
	}
	p := c.picker
	first := c.tried == nil
	if first {
		c.tried = make([]bool, len(c.targets))
		for i := range c.targets {
			c.most = max(c.most, int(c.targets[i].weight))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if first {
		p.watch(c.leaf)
	}
	i := c.first
	if c.first = -1; i < 0 || c.ejected(i, time.Now()) {
		i = c.better(c.draw(-1))
	}
	if i < 0 {
		return nil
	}
	c.tried[i] = true
	c.target = &c.targets[i]
	c.taken = p.load(c.target)
	c.taken.inUse++
	return c.target
}

// better returns the less loaded of i and another random target.
func (c *candidates) better(i int) int {
	if i < 0 {
		return i
	}
	j := c.draw(i)
	if j < 0 {
		return i
	}
	busy := func(i int) int {
		if l := c.picker.loads[c.targets[i].address()]; l != nil {
			return l.inUse
		}
		return 0
	}
	if busy(j)*int(c.targets[i].weight) < busy(i)*int(c.targets[j].weight) {
		return j
	}
	return i
}

// draw returns a random target, by weight, of those that have not been tried,
// but for one; an ejected one only if there is no other, and -1 if there is none.
//
// Of many, most single draws hit one that will do, and nobody waits until a
// thousand others have been looked at.
func (c *candidates) draw(but int) int {
	const many = 16
	now := time.Now()
	for tries := 0; tries < many && len(c.targets) > many; tries++ {
		i := rand.IntN(len(c.targets))
		if rand.IntN(c.most) < int(c.targets[i].weight) && i != but && !c.tried[i] && !c.ejected(i, now) {
			return i
		}
	}
	for _, ejected := range []bool{false, true} {
		if ejected && but >= 0 && !c.ejected(but, now) {
			break
		}
		drawn, sum := -1, 0
		for i := range c.targets {
			if i == but || c.tried[i] || c.ejected(i, now) != ejected {
				continue
			}
			weight := int(c.targets[i].weight)
			if sum += weight; rand.IntN(sum) < weight {
				drawn = i
			}
		}
		if drawn >= 0 {
			return drawn
		}
	}
	return -1
}

// worked notes that the target could be reached, failed that it could not.
func (c *candidates) worked() {
	if c.taken == nil {
		return
	}
	c.picker.mu.Lock()
	defer c.picker.mu.Unlock()
	c.taken.failures, c.taken.until = 0, time.Time{}
}

// failed gives back what was taken.
func (c *candidates) failed(err error) {
	if c.taken == nil {
		return
	}
	c.picker.mu.Lock()
	defer c.picker.mu.Unlock()
	c.taken.eject(err)
	c.giveBack()
}

// eject passes an address over for longer each time. Those that fail while it is
// passed over, since they were on their way to it by then, say nothing new.
func (l *load) eject(err error) {
	now := time.Now()
	if l.err = err; now.Before(l.until) {
		return
	}
	if l.failures == 0 {
		l.since = now
	}
	l.until = now.Add(min(time.Second<<min(l.failures, 10), maxEjection))
	l.failures++
}

// kept returns what a tunnel must keep: nil if it had only one to go to.
func (c *candidates) kept() *candidates {
	if c.taken == nil {
		return nil
	}
	return &candidates{picker: c.picker, taken: c.taken, target: &target{scheme: c.target.scheme, addr: c.target.addr}}
}

// end gives back what was taken. It may be called again.
func (c *candidates) end() {
	if c == nil || c.taken == nil {
		return
	}
	c.picker.mu.Lock()
	defer c.picker.mu.Unlock()
	c.giveBack()
}

// giveBack ends the use of what was taken. The lock is held.
func (c *candidates) giveBack() {
	if l := c.taken; l != nil {
		c.taken = nil
		if l.inUse--; l.inUse == 0 && l.failures == 0 {
			delete(c.picker.loads, c.target.address())
		}
	}
}

func (c *candidates) ejected(i int, now time.Time) bool {
	_, err := c.picker.ejection(c.leaf, &c.targets[i], now)
	return err != nil
}

// ejection returns since when and why a leaf's target is passed over; a nil
// error if it is not. The lock is held.
func (p *picker) ejection(l *leaf, t *target, now time.Time) (since time.Time, err error) {
	if l.options.Check.Path != "" {
		if b := p.probes[l.options.probeKey(t)]; b != nil && b.failures >= fall {
			return b.since, b.err
		}
	}
	if l := p.loads[t.address()]; l != nil && now.Before(l.until) {
		return l.since, l.err
	}
	return time.Time{}, nil
}

// reached notes that a check has reached a target. The lock is held.
func (p *picker) reached(t *target) {
	if l := p.loads[t.address()]; l != nil {
		if l.failures, l.until = 0, (time.Time{}); l.inUse == 0 {
			delete(p.loads, t.address())
		}
	}
}

// load returns the load of a target's address. The lock is held.
func (p *picker) load(t *target) *load {
	l := p.loads[t.address()]
	if l != nil {
		return l
	}
	if len(p.loads) >= p.sweep {
		for a, l := range p.loads {
			if l.inUse == 0 && time.Since(l.until) > maxEjection {
				delete(p.loads, a)
			}
		}
		p.sweep = 2*len(p.loads) + 64
	}
	if p.loads == nil {
		p.loads = make(map[address]*load)
	}
	l = new(load)
	p.loads[t.address()] = l
	return l
}
