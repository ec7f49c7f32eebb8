package slipswitch

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/dial"
)

// Transports send plain requests. A transport's pool knows only addresses, so there
// is a transport for each way of connecting: no client certificate and no guard is
// got around by a connection that somebody else has left.
type transports struct {
	dialer *dial.Dialer
	pools  map[poolKey]*http.Transport
	berths berths
}

// A poolKey is what two upstreams must have in common to share connections, but for
// the address.
type poolKey struct {
	scheme  scheme
	guarded bool
	profile string // of https
}

func (t *target) poolKey(profile string) poolKey {
	if t.scheme != schemeHTTPS {
		profile = ""
	}
	return poolKey{t.scheme, t.template != nil, profile}
}

func (s *transports) init(d *dial.Dialer) {
	s.dialer = d
	s.pools = make(map[poolKey]*http.Transport)
	for _, guarded := range []bool{false, true} {
		s.add(poolKey{schemeHTTP, guarded, ""}, &http.Transport{})
		h2c := &http.Transport{Protocols: new(http.Protocols)}
		h2c.Protocols.SetUnencryptedHTTP2(true)
		s.add(poolKey{schemeH2C, guarded, ""}, h2c)
		for _, name := range append(slices.Collect(maps.Keys(d.Profiles)), "") {
			s.add(poolKey{schemeHTTPS, guarded, name}, &http.Transport{ForceAttemptHTTP2: true})
		}
	}
	s.add(poolKey{schemeUnix, false, ""}, &http.Transport{})
}

func (s *transports) add(k poolKey, t *http.Transport) {
	t.Proxy = nil // never by the gateway's environment
	t.DisableCompression = true
	t.DialContext = s.dialTo(k)
	if k.scheme == schemeHTTPS {
		t.DialTLSContext = t.DialContext
	}
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	t.MaxIdleConns = 4096
	t.MaxIdleConnsPerHost = 64
	t.IdleConnTimeout = 90 * time.Second
	t.MaxResponseHeaderBytes = 1 << 20
	s.pools[k] = t
}

// dialTo returns what a transport dials by: to the address that stands in the berth
// of that name.
func (s *transports) dialTo(k poolKey) dial.Func {
	return func(ctx context.Context, network, name string) (net.Conn, error) {
		b := s.berths.takeNamed(name)
		if b == nil {
			return nil, &dial.Error{Err: context.Canceled}
		}
		leave := sync.OnceFunc(func() { s.berths.leave(b) })
		e := k.endpoint(b.addr, "h2", "http/1.1")
		e.Wrap = func(conn net.Conn) net.Conn { return &berthed{Conn: conn, leave: leave} }
		conn, err := s.dialer.Dial(ctx, e)
		if err != nil {
			leave()
		}
		return conn, err
	}
}

// endpoint returns how to connect to a target, to speak one of the protocols there.
func (t *target) endpoint(profile string, protocols ...string) dial.Endpoint {
	return t.poolKey(profile).endpoint(t.addr, protocols...)
}

func (k poolKey) endpoint(addr string, protocols ...string) dial.Endpoint {
	e := dial.Endpoint{Network: "tcp", Address: addr, Guarded: k.guarded}
	switch k.scheme {
	case schemeUnix:
		e.Network = "unix"
	case schemeHTTPS:
		e.TLS, e.Profile, e.Protocols = true, k.profile, protocols
	}
	return e
}

// roundTrip sends a plain request to a target. Of the request's URL the host is
// the transport's.
func (s *transports) roundTrip(t *target, profile string, r *http.Request) (*http.Response, error) {
	if t.scheme == schemeHTTPS {
		if _, err := s.dialer.Profile(profile); err != nil {
			return nil, err
		}
	}
	if r.Host == "" {
		if r.Host = t.addr; t.scheme == schemeUnix {
			r.Host = "localhost"
		}
	}
	b := s.berths.take(t.addr)
	defer s.berths.leave(b) // the connection has it now
	r.URL.Host = b.name
	return s.pools[t.poolKey(profile)].RoundTrip(r)
}

// closeIdle closes the connections that nobody uses.
func (s *transports) closeIdle() {
	for _, transport := range s.pools {
		transport.CloseIdleConnections()
	}
}

// A connection over HTTP/2 on which nothing has come for pingAfter is sent a ping,
// and is gone if that is not answered within pingTimeout.
const (
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

func (r *Route) ackTimeout() time.Duration {
	if r.AckTimeout > 0 {
		return r.AckTimeout
	}
	return time.Minute
}

const defaultHandshakeTimeout = 30 * time.Second

func (r *Route) handshakeTimeout() time.Duration {
	if r.HandshakeTimeout > 0 {
		return r.HandshakeTimeout
	}
	return max(defaultHandshakeTimeout, r.DialTimeout)
}

// initDialer sets up how to connect to upstreams.
func (p *Proxy) initDialer() {
	p.dialer.Connect = p.DialContext
	p.dialer.Allowed = p.TemplateAddresses
	p.dialer.Profiles = maps.Clone(p.TLSProfiles)
	p.dialer.MaxDials, p.dialer.MaxDialsPerGroup = p.Limits.Dials, p.Limits.DialsPerRoute
	p.dialer.Over = func(group bool) error {
		limit := "dials"
		if group {
			limit = "dialsPerRoute"
		}
		return p.overLimit(limit, "too many connections are being opened", time.Second)
	}
	p.dialer.Accept = p.spare
	p.dialer.Panicked = p.panicked
	p.transports.init(&p.dialer)
}

// dialContext returns a request's context with what its dials must know.
func (p *Proxy) dialContext(ctx context.Context, m Match) context.Context {
	return p.dialer.Context(ctx, m.options().DialTimeout, m.leaf.place)
}

// closeIdle gives back the descriptors that nothing needs now.
func (p *Proxy) closeIdle() {
	p.lingering.HangUp()
	p.transports.closeIdle()
}
