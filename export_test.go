package slipswitch

import (
	"net/http"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// Spread calls end n times as tunnels are ended over a window.
func Spread(n int, window time.Duration, end func()) {
	tunnels := make([]*Tunnel, n)
	for i := range tunnels {
		tunnels[i] = new(Tunnel)
	}
	spread(nil, tunnels, window, func(*Tunnel) { end() })
}

// Reports is the queue of a Proxy's reports.
type Reports = reports

// NewReports returns one with hooks.
func NewReports(closed func(CloseReport), burst func(Burst)) *Reports {
	return &Reports{closed: closed, burst: burst, dropped: func() {}}
}

const MostReports = mostReports

func (q *reports) Add(r CloseReport)           { q.add(r) }
func (q *reports) Done() <-chan struct{}       { return q.done() }
func (q *reports) Bursts() []Burst             { return q.bursts.all() }
func (q *reports) CloseReports() []CloseReport { return q.closes.all() }

// Checked returns how many routes are checked, and how many questions that takes:
// of none is left what nobody asks for.
func (p *Proxy) Checked() (routes, questions int) { return p.checker.Stats() }

// InUse returns how many requests and tunnels the upstreams are loaded with that
// stand beside others.
func (p *Proxy) InUse() int { _, leases := p.balancer.Stats(); return leases }

// Loads returns of how many addresses the load or a failure is remembered.
func (p *Proxy) Loads() int { addresses, _ := p.balancer.Stats(); return addresses }

// Leads returns where the route's own upstreams lead for a match.
func (m Match) Leads() (addresses []string, err error) {
	targets, err := m.expandAll()
	for i := range targets {
		addresses = append(addresses, targets[i].addr)
	}
	return addresses, err
}

// Outgoing and Incoming change the cookies of a request and of a response, for
// the path of a prefix.
func (r *Route) Outgoing(header http.Header)                { r.outgoing(header, nil) }
func (r *Route) Incoming(header http.Header, prefix string) { r.rewriteCookies(header, prefix) }

// HoldPlace locks the place of a route's key until release is called: a change
// of that route stops half-way.
func HoldPlace(r *Router, k Key) (release func()) {
	entry, _ := r.Table().At(k)
	entry.leaf.place.mu.Lock()
	return entry.leaf.place.mu.Unlock
}

// Kept returns how many places without a route are remembered.
func Kept(r *Router) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.kept)
}

// Do has f called once a tunnel is carried, or at once, as whatever is asked of
// one is; CarriedBy has it carried, though not by much.
func (t *Tunnel) Do(f func()) { t.do(func(*splice.Pair) { f() }) }
func (t *Tunnel) CarriedBy()  { t.carriedBy(new(splice.Pair)) }

// Taken returns how much there is of all that is limited by Limits.
func Taken(p *Proxy) int {
	p.seats.mu.Lock()
	defer p.seats.mu.Unlock()
	n := 0
	for _, t := range []*tally{&p.seats.requests, &p.seats.tunnels, &p.seats.handshakes} {
		n += t.all + len(t.places) + len(t.clients)
	}
	return n
}

// LimitDropping bounds the connections whose input is dropped at a time; see early.go.
func LimitDropping(p *Proxy, n int) {
	p.start.Do(p.init)
	p.dropping.SetLimit(n)
}

// Logged returns a channel that is closed when all that was logged so far is with
// the Logger.
func Logged(p *Proxy) <-chan struct{} { return p.journal.Done() }

// Lingering returns how many connections wait for an upstream to end them.
func (p *Proxy) Lingering() int { return p.transports.http1.Stats().Lingering }

// Tunneling returns how many seats of tunnels are taken.
func Tunneling(p *Proxy) int {
	p.seats.mu.Lock()
	defer p.seats.mu.Unlock()
	return p.seats.tunnels.all
}
