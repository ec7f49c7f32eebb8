package slipswitch

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// A Tunnel is one upgraded connection, from its 101 to its close. Its methods
// may be called concurrently, also after its end.
type Tunnel struct {
	proxy    *Proxy
	id       uint64
	match    Key
	version  uint64
	client   string
	peer     string
	seat     seat
	upstream string
	listed   string // the upstream as the route has it
	choice   *choice
	value    any
	opened   time.Time
	place    *place

	mu      sync.Mutex
	pair    *splice.Pair         // nil until the client has its 101
	later   []func(*splice.Pair) // what is to be done then
	recheck *time.Timer          // for Proxy.Reauthorize; nil: none
	ended   bool
	change  *TableChange // the first that has asked for its end; nil: none

	scheduled *scheduledClose // by a policy; nil: none; place.mu is held
}

// ID is unique in the Proxy, and grows with each tunnel.
func (t *Tunnel) ID() uint64 { return t.id }

// Route is the key of the route that the tunnel was opened by. The route there
// may be another one by now, or none.
func (t *Tunnel) Route() Key { return t.match }

// Version is that of the table that the tunnel was opened by.
func (t *Tunnel) Version() uint64 { return t.version }

// Client is the client as Client.String has it: its address, or an identifier,
// or "unknown".
func (t *Tunnel) Client() string { return t.client }

// Peer is the address of the other end of the client's connection: of the client
// itself, or of the proxy before the gateway. "unix" means a Unix socket.
func (t *Tunnel) Peer() string { return t.peer }

// Upstream is the URL of the upstream, without path.
func (t *Tunnel) Upstream() string { return t.upstream }

// Value is what Proxy.TunnelValue has returned.
func (t *Tunnel) Value() any { return t.value }

// Opened is when the tunnel was opened.
func (t *Tunnel) Opened() time.Time { return t.opened }

// Traffic returns what the tunnel has carried so far.
func (t *Tunnel) Traffic() Traffic { return trafficOf(t.stats()) }

func (t *Tunnel) stats() splice.Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pair == nil {
		return splice.Stats{}
	}
	return t.pair.Stats()
}

// do calls f, which must not block, with what carries the tunnel: at once, or as
// soon as it is there. One call comes after the other, in order.
func (t *Tunnel) do(f func(*splice.Pair)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pair == nil {
		t.later = append(t.later, f)
		return
	}
	f(t.pair)
}

// carriedBy does what was to be done later.
func (t *Tunnel) carriedBy(pair *splice.Pair) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pair = pair
	for _, f := range t.later {
		f(pair)
	}
	t.later = nil
}

func (t *Tunnel) hasEnded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// Traffic is what a tunnel has carried. Messages are WebSocket messages, 0 in
// a tunnel whose bytes are not looked at.
type Traffic struct {
	ClientBytes      int64     `json:"clientBytes"` // sent by the client
	ClientMessages   int64     `json:"clientMessages"`
	UpstreamBytes    int64     `json:"upstreamBytes"` // sent by the upstream
	UpstreamMessages int64     `json:"upstreamMessages"`
	LastData         time.Time `json:"lastData,omitzero"`   // any byte, either way
	LastActive       time.Time `json:"lastActive,omitzero"` // without ping, pong and close
}

func trafficOf(s splice.Stats) Traffic {
	client, upstream := s.From[splice.Client], s.From[splice.Upstream]
	return Traffic{
		client.Bytes, client.Messages, upstream.Bytes, upstream.Messages,
		latest(client.LastData, upstream.LastData), latest(client.LastActive, upstream.LastActive),
	}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// A registry knows the tunnels of a Proxy from just before the client is sent
// its 101: whoever has that is in every list.
type registry struct {
	mu    sync.Mutex
	open  map[uint64]*Tunnel
	last  uint64        // the last ID
	shut  bool          // no more tunnels
	empty chan struct{} // closed when the last has ended; nil while nobody waits for that
}

// closed reports whether no more tunnels may be opened.
func (g *registry) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

// all returns the open tunnels in the order in which they were opened.
func (g *registry) all() []*Tunnel {
	g.mu.Lock()
	tunnels := slices.AppendSeq(make([]*Tunnel, 0, len(g.open)), maps.Values(g.open))
	g.mu.Unlock()
	slices.SortFunc(tunnels, func(a, b *Tunnel) int { return int(int64(a.id - b.id)) })
	return tunnels
}

// close forbids further tunnels and returns a channel that is closed when none
// is left.
func (g *registry) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.settle()
	return empty
}

func (g *registry) settle() {
	if g.empty != nil && len(g.open) == 0 {
		close(g.empty)
		g.empty = nil
	}
}

// enter gives a tunnel its ID, unless no more may be opened.
func (g *registry) enter(t *Tunnel) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	if g.open == nil {
		g.open = make(map[uint64]*Tunnel)
	}
	g.last++
	t.id = g.last
	g.open[t.id] = t
	return true
}

func (g *registry) leave(t *Tunnel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, t.id)
	g.settle()
}

// Tunnels yields the tunnels that are open now, in the order in which they
// were opened, those included whose clients are just being sent the 101: one that
// cannot be is gone again, without a report.
func (p *Proxy) Tunnels() iter.Seq[*Tunnel] { return slices.Values(p.tunnels.all()) }
