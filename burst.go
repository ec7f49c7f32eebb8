package slipswitch

import (
	"log/slog"
	"time"
)

// A Burst is a group of tunnels that ended together for the same reason: ten or
// more, each within a second of the one before. It is reported a second after
// the last, and every ten seconds while it goes on.
type Burst struct {
	By      By        `json:"by"`
	How     How       `json:"how"`
	Why     Why       `json:"why,omitempty"`
	Tunnels int       `json:"tunnels"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`

	// Route, Upstream, Client and Peer are those of the tunnels. Nil or empty means
	// that they differ: a load balancer that restarts ends tunnels of one Peer
	// and of many clients.
	Route    *Key   `json:"route,omitempty"`
	Upstream string `json:"upstream,omitempty"`
	Client   string `json:"client,omitempty"`
	Peer     string `json:"peer,omitempty"`

	// Change is the change that ended all of them. Nil means none, or several.
	Change *TableChange `json:"change,omitempty"`
}

const (
	burstLeast = 10
	burstGap   = time.Second
	burstMost  = 10 * time.Second
)

// LogValue returns the burst as a group of attributes, without empty ones.
func (b Burst) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Int("tunnels", b.Tunnels), slog.String("by", string(b.By)), slog.String("how", string(b.How))}
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("why", string(b.Why))
	if b.Route != nil {
		add("route", b.Route.String())
	}
	add("upstream", b.Upstream)
	add("client", b.Client)
	add("peer", b.Peer)
	attrs = b.Change.append(attrs)
	return slog.GroupValue(append(attrs, slog.String("within", b.Last.Sub(b.First).Round(time.Millisecond).String()))...)
}

// A cause is what the tunnels of a burst have in common.
type cause struct {
	by  By
	how How
	why Why
}

// A growth is a burst that is growing, or does not have enough tunnels yet.
type growth struct {
	Burst
	timer *time.Timer
}

// grow adds a report to the burst of its cause. The lock is held.
func (q *reports) grow(r CloseReport) {
	at := cause{r.By, r.How, r.Why}
	g := q.growing[at]
	if g == nil {
		if q.growing == nil {
			q.growing = make(map[cause]*growth)
		}
		route := r.Route
		g = &growth{Burst: Burst{By: r.By, How: r.How, Why: r.Why, First: r.Closed,
			Route: &route, Upstream: r.Upstream, Client: r.Client, Peer: r.Peer, Change: r.Change}}
		g.timer = time.AfterFunc(burstGap, func() { q.ripen(g) })
		q.growing[at] = g
	}
	g.Tunnels++
	g.Last = r.Closed
	if g.Route != nil && *g.Route != r.Route {
		g.Route = nil
	}
	if g.Upstream != r.Upstream {
		g.Upstream = ""
	}
	if g.Client != r.Client {
		g.Client = ""
	}
	if g.Peer != r.Peer {
		g.Peer = ""
	}
	if g.Change != nil && (r.Change == nil || *g.Change != *r.Change) {
		g.Change = nil
	}
}

// ripen ends a growth unless it goes on.
func (q *reports) ripen(g *growth) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.growing[cause{g.By, g.How, g.Why}] != g {
		return
	}
	now := time.Now()
	if more := min(burstGap-now.Sub(g.Last), burstMost-now.Sub(g.First)); more > 0 {
		g.timer.Reset(more)
		return
	}
	q.settle(g)
}

// settle ends a growth. The lock is held.
func (q *reports) settle(g *growth) {
	g.timer.Stop()
	delete(q.growing, cause{g.By, g.How, g.Why})
	if g.Tunnels >= burstLeast {
		q.bursts.add(g.Burst, 100)
		q.tell(g.Burst)
	}
}

// Bursts returns the last 100 bursts, in the order of their ends.
func (p *Proxy) Bursts() []Burst {
	p.reports.mu.Lock()
	defer p.reports.mu.Unlock()
	return p.reports.bursts.all()
}
