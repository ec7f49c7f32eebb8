package slipswitch

import (
	"cmp"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/descriptor"
	"golang.org/x/sync/errgroup"
)

// Limits bound the requests and tunnels of a Proxy, and what they use. A request
// over a limit is answered with 503 and Retry-After, and counted by
// [Proxy.LimitsHit]. Open tunnels stay.
//
// A client is an IPv4 address, the first 64 bits of an IPv6 address, as that is
// what a household has, or the identifier by which a trusted proxy hides it (RFC
// 7239 §6.3). All clients of a proxy that is not one of Proxy.TrustedProxies are
// one client, and so are all on Unix sockets, unless Proxy.TrustUnix is set. A
// route is a host and path.
type Limits struct {
	// Requests is the greatest number of requests in progress: from the match to
	// the end of the response, or to the 101 of an upgrade. Zero means 16,384, or
	// half the number of descriptors if that is less. Negative means no limit.
	Requests int

	// RequestsPerRoute is the greatest number of them for one route. Zero means half
	// of Requests. Negative means no limit.
	RequestsPerRoute int

	// RequestsPerClient is the greatest number of them of one client. Zero means a
	// quarter of Requests. Negative means no limit.
	RequestsPerClient int

	// Tunnels is the greatest number of tunnels, with handshakes in progress. Zero
	// means no limit.
	Tunnels int

	// TunnelsPerRoute is the greatest number of them at one route. Zero means no
	// limit.
	TunnelsPerRoute int

	// TunnelsPerClient is the greatest number of them of one client. Zero means no
	// limit.
	TunnelsPerClient int

	// Handshakes is the greatest number of upgrades between their request and their
	// answer, HandshakesPerRoute that at one route. Zero means no limit.
	Handshakes, HandshakesPerRoute int

	// Dials is the greatest number of connections to upstreams that are being
	// opened, with their TLS handshake, DialsPerRoute that for one route. Zero means
	// no limit.
	Dials, DialsPerRoute int

	// Pipes is the greatest number of pipes that large messages are spliced
	// through. Each takes two descriptors and 256 KiB of kernel memory. Zero means
	// 64, or as many as half of SpareDescriptors allows if that is less. Negative
	// means no pipes.
	Pipes int

	// SpareDescriptors is the number of descriptors, of those that the process may
	// open, that connections leave free for its other needs. Zero means the greater
	// of 64 and a 32nd of all, but at most a quarter.
	SpareDescriptors int
}

// A seat is what a request or a tunnel counts for: a place and a client.
type seat struct {
	place  string
	client clientKey
}

// A clientKey identifies a client.
type clientKey struct {
	network netip.Prefix
	id      string // if there is no address
}

// seat returns the seat of a request.
func (x *exchange) seat() seat {
	addr := x.client.Addr
	at := seat{place: x.match.leaf.place.key}
	switch {
	case !addr.IsValid():
		at.client.id = x.client.String()
	case addr.Is6():
		at.client.network, _ = addr.Prefix(64)
	default:
		at.client.network = netip.PrefixFrom(addr, 32)
	}
	return at
}

// seats counts the seats that are taken, against a Proxy's limits.
type seats struct {
	mu                            sync.Mutex
	requests, tunnels, handshakes tally
	last                          func() // called when no request is in progress; nil means none
}

func (s *seats) endUnused() {
	if s.last != nil && s.requests.all == 0 {
		s.last()
	}
}

// A tally counts seats of one kind against their limits.
type tally struct {
	name, reason              string
	retry                     time.Duration
	most, perPlace, perClient int // zero or less means no limit

	all     int
	places  map[string]int // nil unless there is a limit
	clients map[clientKey]int
}

// init sets the limits. Their defaults follow the process's descriptor limit.
func (s *seats) init(l *Limits) {
	requests := tally{name: "requests", reason: "too many requests", retry: time.Second, most: l.requests()}
	requests.perPlace = cmp.Or(l.RequestsPerRoute, max(requests.most/2, min(requests.most, 1)))
	requests.perClient = cmp.Or(l.RequestsPerClient, max(requests.most/4, min(requests.most, 1)))
	s.requests = requests
	s.tunnels = tally{name: "tunnels", reason: "too many sockets", retry: 10 * time.Second,
		most: l.Tunnels, perPlace: l.TunnelsPerRoute, perClient: l.TunnelsPerClient}
	s.handshakes = tally{name: "handshakes", reason: "too many sockets", retry: time.Second,
		most: l.Handshakes, perPlace: l.HandshakesPerRoute}
}

const maxRequests = 16 << 10

// requests returns the limit on requests in progress.
func (l *Limits) requests() int {
	all, ok := descriptor.Limit()
	switch {
	case l.Requests != 0:
		return l.Requests
	case !ok:
		return maxRequests
	}
	return min(maxRequests, max(1, (all-descriptor.Reserve(l.SpareDescriptors, all))/2))
}

// over returns the name of the limit that one more would exceed, or "".
func (t *tally) over(at seat) string {
	switch {
	case t.most > 0 && t.all >= t.most:
		return t.name
	case t.perPlace > 0 && t.places[at.place] >= t.perPlace:
		return t.name + "PerRoute"
	case t.perClient > 0 && t.clients[at.client] >= t.perClient:
		return t.name + "PerClient"
	}
	return ""
}

func (t *tally) add(at seat, n int) {
	t.all += n
	if t.perPlace > 0 {
		count(&t.places, at.place, n)
	}
	if t.perClient > 0 {
		count(&t.clients, at.client, n)
	}
}

// take takes a seat of each kind, or none of them and returns the 503 of the limit
// that is reached.
func (p *Proxy) take(at seat, kinds ...*tally) error {
	p.seats.mu.Lock()
	defer p.seats.mu.Unlock()
	for _, t := range kinds {
		if limit := t.over(at); limit != "" {
			return p.overLimit(limit, t.reason, t.retry)
		}
	}
	for _, t := range kinds {
		t.add(at, 1)
	}
	return nil
}

// leave gives a seat back.
func (p *Proxy) leave(at seat, t *tally) {
	p.seats.mu.Lock()
	defer p.seats.mu.Unlock()
	t.add(at, -1)
	p.seats.endUnused()
}

func count[K comparable](counts *map[K]int, key K, by int) {
	if *counts == nil {
		*counts = make(map[K]int)
	}
	if (*counts)[key] += by; (*counts)[key] == 0 {
		delete(*counts, key)
	}
}

// Listen returns a listener that turns new connections away while the process has
// nearly as many descriptors open as it may have; see Limits.SpareDescriptors. A
// connection that begins with a plain HTTP request is answered with 503 and
// Retry-After. The listener compares each new descriptor's number with the process
// limit, so every open file counts, pipes and idle connections too. That costs
// about as much as a system call. The connections are those of l, not wrapped.
//
// Connections to upstreams are checked even without Listen: a request that would
// exceed the limit is answered with 503.
func (p *Proxy) Listen(l net.Listener) net.Listener {
	p.start.Do(p.init)
	g := &gate{Listener: l, proxy: p}
	g.turning.SetLimit(16)
	return g
}

// Crowded reports whether the process has so many descriptors open that Listen
// turns connections away. Load balancers should then choose another gateway. To
// find out it opens a descriptor for a moment. It returns false where the limit
// cannot be known.
func (p *Proxy) Crowded() bool { return descriptor.NextReserved(p.Limits.SpareDescriptors) }

// A gate is a listener that turns connections away.
type gate struct {
	net.Listener
	proxy   *Proxy
	turning errgroup.Group // connections away
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil || !descriptor.Reserved(conn, g.proxy.Limits.SpareDescriptors) {
			return conn, err
		}
		g.proxy.closeIdle()
		if g.proxy.hits.note("descriptors") {
			g.proxy.log().Warn("slipswitch: connections are turned away, since the process has nearly as many descriptors open as it may have")
		}
		if !g.turning.TryGo(func() error { turnAway(conn); return nil }) {
			conn.Close()
		}
	}
}

const away = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\nContent-Length: 0\r\nProxy-Status: slipswitch; error=connection_limit_reached\r\n\r\n"

// turnAway answers and closes a connection. It reads the input first: closing with
// unread input resets the connection, and the client may lose the answer.
func turnAway(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	var first [1]byte
	if n, _ := conn.Read(first[:]); n == 0 {
		return
	}
	if first[0] >= 'A' && first[0] <= 'Z' { // else TLS, which cannot be answered without a handshake
		io.WriteString(conn, away)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	io.Copy(io.Discard, io.LimitReader(conn, 64<<10))
}

// spare returns a 503 if a new connection to an upstream has a descriptor of those
// to be kept free.
func (p *Proxy) spare(conn net.Conn) error {
	if !descriptor.Reserved(conn, p.Limits.SpareDescriptors) {
		return nil
	}
	p.closeIdle()
	return p.overLimit("descriptors", "too many connections", 10*time.Second)
}

// pipes returns the limit on the engine's pipes.
func (l *Limits) pipes() int {
	most := 64
	if all, ok := descriptor.Limit(); ok {
		most = min(most, descriptor.Reserve(l.SpareDescriptors, all)/4)
	}
	switch {
	case l.Pipes > 0:
		return l.Pipes
	case l.Pipes < 0 || most == 0:
		return -1
	}
	return most
}
