// Package balance chooses one of several upstreams. It knows addresses, weights
// and whether an upstream is healthy, never routes.
//
// Two upstreams are drawn at random, by weight, and the less loaded one is
// chosen. If it cannot be reached, the next one is. (If all gateways chose the
// least loaded of all, they would overrun an upstream that has just come up.) An
// upstream that cannot be reached is ejected: it is passed over for a while, at
// first for a second, unless there is no other. So is one that is not healthy.
//
// A chosen upstream is held by a Lease. The leases make up the load.
package balance

import (
	"math/rand/v2"
	"sync"
	"time"
)

// A Balancer knows the load and the failures of addresses, for all that choose among
// them. Its zero value is ready; its methods may be called concurrently.
type Balancer struct {
	mu    sync.Mutex
	loads map[Address]*load
	sweep int // at so many, what has expired is thrown out
}

// An Address is whom a load and a failure are counted for.
type Address struct{ Scheme, Host string }

type load struct {
	leases   int
	failures int // in a row
	since    time.Time
	until    time.Time
	err      error // of the last failure
}

const maxEjection = 30 * time.Second

// A Set is several upstreams to choose from. Its methods must not call the Balancer.
type Set interface {
	Len() int
	Address(i int) Address
	Weight(i int) int // from 1
	MaxWeight() int   // is asked for once, and only of a large set
	Healthy(i int) bool
}

// A Picker picks the upstreams of a set in the order in which to try them.
type Picker struct {
	balancer  *Balancer
	set       Set
	first     int // the upstream to pick first; -1: none in particular
	maxWeight int
	last      int    // that was picked; -1: none
	picked    []bool // before that; nil: none
}

// Pick begins to pick. The upstream whose number is first comes first unless it is
// ejected; -1: none.
func (b *Balancer) Pick(set Set, first int) Picker {
	p := Picker{balancer: b, set: set, first: first, last: -1}
	if set.Len() > large {
		p.maxWeight = set.MaxWeight()
	}
	return p
}

// Next picks one that was not picked before. The lease must be ended. At the end it
// returns -1 and no lease.
func (p *Picker) Next() (int, *Lease) {
	if p.last >= 0 {
		if p.picked == nil {
			p.picked = make([]bool, p.set.Len())
		}
		p.picked[p.last] = true
	}
	b := p.balancer
	b.mu.Lock()
	defer b.mu.Unlock()
	i := p.first
	if p.first = -1; i < 0 || p.ejected(i, time.Now()) {
		i = p.better(p.draw(-1))
	}
	if i < 0 {
		return -1, nil
	}
	p.last = i
	l := &Lease{b, p.set.Address(i), nil}
	l.load = b.load(l.address)
	l.load.leases++
	return i, l
}

// better returns the less loaded of i and another random one.
func (p *Picker) better(i int) int {
	if i < 0 {
		return i
	}
	j := p.draw(i)
	if j < 0 {
		return i
	}
	busy := func(i int) int {
		if l := p.balancer.loads[p.set.Address(i)]; l != nil {
			return l.leases
		}
		return 0
	}
	if busy(j)*p.set.Weight(i) < busy(i)*p.set.Weight(j) {
		return j
	}
	return i
}

// large is from how many upstreams on not all are looked at.
const large = 16

// draw returns a random upstream, by weight, of those that have not been picked, but
// for one; an ejected one only if there is no other, and -1 if there is none.
//
// Of a large set most single draws hit one that will do, and nobody waits until a
// thousand others have been looked at.
func (p *Picker) draw(but int) int {
	now := time.Now()
	n := p.set.Len()
	for tries := 0; tries < large && n > large; tries++ {
		i := rand.IntN(n)
		if rand.IntN(p.maxWeight) < p.set.Weight(i) && i != but && !p.wasPicked(i) && !p.ejected(i, now) {
			return i
		}
	}
	for _, ejected := range []bool{false, true} {
		if ejected && but >= 0 && !p.ejected(but, now) {
			break
		}
		drawn, sum := -1, 0
		for i := range n {
			if i == but || p.wasPicked(i) || p.ejected(i, now) != ejected {
				continue
			}
			weight := p.set.Weight(i)
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

func (p *Picker) wasPicked(i int) bool { return p.picked != nil && p.picked[i] }

func (p *Picker) ejected(i int, now time.Time) bool {
	if !p.set.Healthy(i) {
		return true
	}
	l := p.balancer.loads[p.set.Address(i)]
	return l != nil && now.Before(l.until)
}

// A Lease is the use of an upstream by one request, or one tunnel. All its methods
// may be called on nil, the lease of what there was no choice of.
type Lease struct {
	balancer *Balancer
	address  Address
	load     *load // nil: it has ended
}

// Reached notes that the upstream could be reached.
func (l *Lease) Reached() {
	if l == nil {
		return
	}
	l.balancer.mu.Lock()
	defer l.balancer.mu.Unlock()
	if l.load != nil {
		l.load.reset()
	}
}

// Eject ends the lease, since the upstream could not be reached.
func (l *Lease) Eject(err error) {
	if l == nil {
		return
	}
	l.balancer.mu.Lock()
	defer l.balancer.mu.Unlock()
	if l.load != nil {
		l.load.eject(err)
	}
	l.end()
}

// End ends the lease. It may be called again.
func (l *Lease) End() {
	if l == nil {
		return
	}
	l.balancer.mu.Lock()
	defer l.balancer.mu.Unlock()
	l.end()
}

// end ends the lease. The lock is held.
func (l *Lease) end() {
	if load := l.load; load != nil {
		l.load = nil
		load.leases--
		l.balancer.forget(l.address, load)
	}
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

func (l *load) reset() { l.failures, l.until = 0, time.Time{} }

// Reached notes that an address could be reached: it is ejected no more.
func (b *Balancer) Reached(a Address) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.loads[a]; l != nil {
		l.reset()
		b.forget(a, l)
	}
}

// Ejection returns since when and why an address is passed over; a nil error if it
// is not.
func (b *Balancer) Ejection(a Address) (since time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.loads[a]; l != nil && time.Now().Before(l.until) {
		return l.since, l.err
	}
	return time.Time{}, nil
}

// Stats returns of how many addresses anything is remembered, and how many leases
// there are.
func (b *Balancer) Stats() (addresses, leases int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.loads {
		leases += l.leases
	}
	return len(b.loads), leases
}

// load returns the load of an address. The lock is held.
func (b *Balancer) load(a Address) *load {
	l := b.loads[a]
	if l != nil {
		return l
	}
	if len(b.loads) >= b.sweep {
		for a, l := range b.loads {
			if l.leases == 0 && time.Since(l.until) > maxEjection {
				delete(b.loads, a)
			}
		}
		b.sweep = 2*len(b.loads) + 64
	}
	if b.loads == nil {
		b.loads = make(map[Address]*load)
	}
	l = new(load)
	b.loads[a] = l
	return l
}

// forget forgets a load that says nothing. The lock is held.
func (b *Balancer) forget(a Address, l *load) {
	if l.leases == 0 && l.failures == 0 {
		delete(b.loads, a)
	}
}
