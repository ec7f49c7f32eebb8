package slipswitch

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Limits bound what a Proxy takes on. A request over one of them is answered
// with 503 and Retry-After; what is open is not touched. Zero fields, but for
// the last two, set no limit.
type Limits struct {
	// Tunnels is how many there may be, handshakes in progress included.
	Tunnels int

	// TunnelsPerRoute is how many of them may be at one host and path.
	TunnelsPerRoute int

	// TunnelsPerClient is how many of them may be of one client: of its
	// IPv4 address, or of the first 64 bits of its IPv6 address, since that is
	// what a household is given. All clients behind a proxy that is not one of
	// Proxy.TrustedProxies are one.
	TunnelsPerClient int

	// Handshakes is how many upgrades may be between their request and their
	// answer; HandshakesPerRoute, how many of them for one host and path.
	Handshakes, HandshakesPerRoute int

	// Dials is how many connections to upstreams may be being opened, TLS
	// included; DialsPerRoute, how many of them for one host and path.
	Dials, DialsPerRoute int

	// Pipes is how many pipes there may be, of two descriptors and 256 KiB of
	// kernel memory each, through which large messages go. Zero: 64, but never so
	// many that they need half of SpareDescriptors. Negative: none.
	Pipes int

	// SpareDescriptors is how many of the descriptors that the process may open
	// are kept for its other needs. Zero: 64, or a 32nd of all if that is more, or
	// a quarter if that is less.
	SpareDescriptors int
}

// A seat is what a tunnel takes from its handshake to its end.
type seat struct {
	place  string
	client netip.Prefix // the zero Prefix: not known
}

func seatOf(place, client string) seat {
	addr, err := netip.ParseAddr(client)
	if err != nil {
		return seat{place: place}
	}
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // without its zone
	return seat{place, prefix}
}

// seats are what is taken of a Proxy's limits.
type seats struct {
	mu         sync.Mutex
	tunnels    int
	handshakes int
	shaking    map[string]int       // handshakes by place; nil unless there is a limit
	places     map[string]int       // tunnels, likewise
	clients    map[netip.Prefix]int // likewise
}

// take takes a seat for a handshake, or returns why there is none.
func (s *seats) take(l *Limits, at seat) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := func(limit, taken int) bool { return limit > 0 && taken >= limit }
	switch {
	case over(l.Handshakes, s.handshakes):
		return overLimit("handshakes", time.Second)
	case over(l.HandshakesPerRoute, s.shaking[at.place]):
		return overLimit("handshakes of this route", time.Second)
	case over(l.Tunnels, s.tunnels):
		return overLimit("tunnels", 10*time.Second)
	case over(l.TunnelsPerRoute, s.places[at.place]):
		return overLimit("tunnels of this route", 10*time.Second)
	case over(l.TunnelsPerClient, s.clients[at.client]) && at.client.IsValid():
		return overLimit("tunnels of this client", 10*time.Second)
	}
	s.handshakes++
	s.tunnels++
	if l.HandshakesPerRoute > 0 {
		count(&s.shaking, at.place, 1)
	}
	if l.TunnelsPerRoute > 0 {
		count(&s.places, at.place, 1)
	}
	if l.TunnelsPerClient > 0 {
		count(&s.clients, at.client, 1)
	}
	return nil
}

// shaken ends a handshake, whose seat stays taken.
func (s *seats) shaken(at seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshakes--
	if s.shaking != nil {
		count(&s.shaking, at.place, -1)
	}
}

// leave gives a seat back.
func (s *seats) leave(at seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tunnels--
	if s.places != nil {
		count(&s.places, at.place, -1)
	}
	if s.clients != nil {
		count(&s.clients, at.client, -1)
	}
}

func count[K comparable](counts *map[K]int, key K, by int) {
	if *counts == nil {
		*counts = make(map[K]int)
	}
	if (*counts)[key] += by; (*counts)[key] == 0 {
		delete(*counts, key)
	}
}

func overLimit(of string, retry time.Duration) error {
	return &Error{Status: http.StatusServiceUnavailable, Reason: "too many sockets", RetryAfter: retry, Err: errors.New("the limit of " + of + " is reached")}
}

// Listen returns l with a gate in front: when the process has nearly as many
// descriptors open as it may have, see Limits.SpareDescriptors, new connections
// are turned away: with a 503 and Retry-After if they begin with a plain HTTP
// request. The gate knows by the number of a new descriptor, which is always the
// lowest that is free, and so all others, pipes and idle connections too, count.
// It is about as cheap as a system call. The connections are passed on as they are.
//
// Connections to upstreams are so watched without Listen: requests for which one
// would be too much are answered with 503.
func (p *Proxy) Listen(l net.Listener) net.Listener {
	p.start.Do(p.init)
	return &gate{Listener: l, proxy: p, turning: make(chan struct{}, 16)}
}

// Crowded reports whether the process has so many descriptors open that Listen
// turns connections away, and load balancers had better choose another gateway.
// It opens one for a moment. False where nobody knows how many there may be.
func (p *Proxy) Crowded() bool { return full(p.Limits.SpareDescriptors) }

// A gate is a listener that turns connections away.
type gate struct {
	net.Listener
	proxy   *Proxy
	turning chan struct{} // a token for each connection that is being turned away
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil || !crowded(conn, g.proxy.Limits.SpareDescriptors) {
			return conn, err
		}
		g.proxy.dialer.closeIdle()
		select {
		case g.turning <- struct{}{}:
			go g.turnAway(conn)
		default:
			conn.Close()
		}
	}
}

const away = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\nContent-Length: 0\r\nProxy-Status: slipswitch; error=connection_limit_reached\r\n\r\n"

// turnAway answers and closes a connection. What comes is read, since closing
// with unread input would take the answer back.
func (g *gate) turnAway(conn net.Conn) {
	defer func() { <-g.turning }()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	var first [1]byte
	if n, _ := conn.Read(first[:]); n == 0 {
		return
	}
	if first[0] >= 'A' && first[0] <= 'Z' { // else TLS: there is no polite word for that
		io.WriteString(conn, away)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	io.Copy(io.Discard, io.LimitReader(conn, 64<<10))
}

// sparing is a dial function that refuses what would take a spare descriptor.
func (p *Proxy) sparing(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil || !crowded(conn, p.Limits.SpareDescriptors) {
			return conn, err
		}
		conn.Close()
		p.dialer.closeIdle()
		return nil, &Error{Status: http.StatusServiceUnavailable, Reason: "too many connections", RetryAfter: 10 * time.Second,
			Err: errors.New("the process has nearly as many descriptors open as it may have")}
	}
}

// spareOf returns how many of all descriptors are kept.
func spareOf(spare, all int) int {
	if spare > 0 {
		return spare
	}
	return min(max(64, all/32), all/4)
}

// pipes returns the engine's limit.
func (l *Limits) pipes() int {
	most := 64
	if all, ok := maxDescriptors(); ok {
		most = min(most, spareOf(l.SpareDescriptors, all)/4)
	}
	switch {
	case l.Pipes > 0:
		return l.Pipes
	case l.Pipes < 0 || most == 0:
		return -1
	}
	return most
}
