package slipswitch

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// A place is the state of one key that outlives its routes: activity and open
// tunnels. A tunnel counts for the route that stands at its place now, even if
// another one opened it.
//
// Router.mu is locked before place.mu.
type place struct {
	key    string
	active atomic.Int64         // unix nanoseconds of the last activity
	leaf   atomic.Pointer[leaf] // the one that stands here now; nil means none

	mu       sync.Mutex
	tunnels  map[*Tunnel]struct{}
	deletion *scheduledClose // by the OnDelete of the route that was deleted here last; nil means none
}

// use notes activity.
func (p *place) use(now time.Time) {
	at := now.UnixNano()
	for {
		last := p.active.Load()
		if at <= last || p.active.CompareAndSwap(last, at) {
			return
		}
	}
}

// lastActive returns the last activity, including that of open tunnels. A time in
// the future, which a clock that was ahead has noted, becomes now.
func (p *place) lastActive() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	noted := p.active.Load() // under the lock: a tunnel notes its last activity here before it leaves
	if now := time.Now(); noted > now.Add(time.Second).UnixNano() {
		p.active.CompareAndSwap(noted, now.UnixNano())
		noted = now.UnixNano()
	}
	last := time.Unix(0, noted)
	for t := range p.tunnels {
		last = latest(last, t.proxy.lastActive(t.stats()))
	}
	return last
}

func (p *place) openTunnels() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tunnels)
}

// follow replaces the leaf that stands here, by none if to is nil. It reports
// whether tunnels are open. Only Router.publish calls it.
func (p *place) follow(to *leaf, change TableChange) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := p.leaf.Swap(to)
	p.deletion = nil
	if to == nil {
		if change.Owner = from.owner(); from.options.OnDelete.Close {
			p.deletion = &scheduledClose{ClosePolicy: from.options.OnDelete, why: WhyRouteDeleted, change: change}
		}
	} else {
		change.Owner = to.owner()
		for t := range p.tunnels {
			t.follow(from, to)
		}
	}
	p.applyPolicy(from, to, change, p.tunnels)
	return len(p.tunnels) > 0
}

// enter adds a tunnel that l has opened, and returns its place. That is not l's if
// the route was deleted and put again after the lookup.
func (l *leaf) enter(r *Router, t *Tunnel) *place {
	p := l.place
	if p.add(t, l, false) {
		return p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.Table().find(p.key); l != nil {
		p = l.place
	} else if kept := r.kept[p.key]; kept != nil {
		p = kept
	} else {
		r.keep(p)
	}
	p.add(t, l, true)
	return p
}

// add adds a tunnel if the place is in use, or if anyway is set. It applies to the
// tunnel what has changed since l opened it.
func (p *place) add(t *Tunnel, l *leaf, anyway bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.leaf.Load()
	if !anyway && now == nil && len(p.tunnels) == 0 {
		return false
	}
	if now != nil {
		t.follow(l, now)
	}
	if now != l {
		change := TableChange{}
		if now != nil {
			change.Owner, change.Version = now.owner(), now.version
		}
		p.applyPolicy(l, now, change, map[*Tunnel]struct{}{t: {}})
	}
	if p.tunnels == nil {
		p.tunnels = make(map[*Tunnel]struct{})
	}
	p.tunnels[t] = struct{}{}
	return true
}

// follow applies to an open tunnel the settings that it takes over from the route
// at its place, which has replaced from. from may be nil.
func (t *Tunnel) follow(from, to *leaf) {
	if from == nil || from.options.IdleTimeout != to.options.IdleTimeout {
		t.do(func(pair *splice.Pair) { pair.SetIdleTimeout(to.options.IdleTimeout) })
	}
	if from == nil || from.options.PingEvery != to.options.PingEvery {
		t.do(func(pair *splice.Pair) { pair.SetPingEvery(to.options.PingEvery) })
	}
}

// leave removes a tunnel. It does not wait for a batch: the engine calls it.
func (p *place) leave(r *Router, t *Tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tunnels, t)
	if len(p.tunnels) == 0 && p.leaf.Load() == nil {
		go r.forget(p)
	}
}
