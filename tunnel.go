package slipswitch

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/balance"
	"github.com/slipswitch/slipswitch/internal/splice"
)

// A Tunnel is one upgraded connection, from its 101 to its close. Its methods
// may be called concurrently, also after it has ended.
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
	lease    *balance.Lease
	value    any
	opened   time.Time
	place    *place

	mu      sync.Mutex
	pair    *splice.Pair         // nil until the client has its 101
	pending []func(*splice.Pair) // calls of do, until then
	recheck *time.Timer          // for Proxy.Reauthorize; nil: none
	ended   bool
	change  *TableChange // the first by which it was closed; nil: none

	scheduled *scheduledClose // by a policy; nil: none; place.mu is held
}

// ID returns the tunnel's number, which is unique in the Proxy and grows with
// each tunnel.
func (t *Tunnel) ID() uint64 { return t.id }

// Route returns the key of the route that opened the tunnel, as [Match.Key] spells
// it: compare it by [Key.Canonical]. By now the table may have another route at that
// key, or none.
func (t *Tunnel) Route() Key { return t.match }

// Version returns the version of the table that opened the tunnel.
func (t *Tunnel) Version() uint64 { return t.version }

// Client returns the client as [Client.String] does: its address, an identifier,
// or "unknown".
func (t *Tunnel) Client() string { return t.client }

// Peer returns the address of the other end of the gateway's connection: that of
// the client, or of the proxy between them. "unix" means a Unix socket.
func (t *Tunnel) Peer() string { return t.peer }

// Upstream returns the URL of the upstream, with port and without path.
func (t *Tunnel) Upstream() string { return t.upstream }

// Value returns the value that Proxy.TunnelValue returned for the tunnel.
func (t *Tunnel) Value() any { return t.value }

// Opened returns when the tunnel was opened.
func (t *Tunnel) Opened() time.Time { return t.opened }

// Traffic returns how much the tunnel has carried so far.
func (t *Tunnel) Traffic() Traffic { return trafficOf(t.stats()) }

func (t *Tunnel) hasEnded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// Traffic is how much a tunnel has carried. An opaque tunnel, whose bytes are
// not parsed as WebSocket frames, has no messages.
type Traffic struct {
	ClientBytes      int64     `json:"clientBytes"` // from the client
	ClientMessages   int64     `json:"clientMessages"`
	UpstreamBytes    int64     `json:"upstreamBytes"` // from the upstream
	UpstreamMessages int64     `json:"upstreamMessages"`
	LastData         time.Time `json:"lastData,omitzero"`   // of the last byte, either way; zero: none
	LastActive       time.Time `json:"lastActive,omitzero"` // the same, without ping, pong and close
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// A registry holds the open tunnels of a Proxy. A tunnel enters just before its
// client is sent the 101, so that none that has it is missing.
type registry struct {
	mu    sync.Mutex
	open  map[uint64]*Tunnel
	last  uint64        // the last ID
	shut  bool          // no more tunnels
	empty chan struct{} // closed when the last has ended; nil: nobody waits for that
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

// close admits no more tunnels, and returns a channel that is closed when none is
// left.
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

// settle closes empty if no tunnel is left. The lock is held.
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

// Tunnels yields the open tunnels in the order in which they were opened. It
// includes tunnels whose 101 is just being sent. A tunnel whose 101 cannot be
// sent is removed without a report.
func (p *Proxy) Tunnels() iter.Seq[*Tunnel] { return slices.Values(p.tunnels.all()) }
