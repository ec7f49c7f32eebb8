package slipswitch

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"time"

	"github.com/slipswitch/slipswitch/internal/dial"
	"github.com/slipswitch/slipswitch/internal/http1"
)

// Transports send requests, plain ones and handshakes alike, over connections of
// which they keep some: HTTP/1.1 by a client of our own, HTTP/2 by net/http.
//
// What two requests must have in common to share connections is an http1.Key: a
// guarded upstream never gets a connection that was dialed without the guard, nor one
// TLS profile's that of another.
type transports struct {
	dialer *dial.Dialer
	http1  http1.Client
	http2  http2Client
}

func (s *transports) init(d *dial.Dialer) {
	s.dialer = d
	s.http1.Dial = s.dialHTTP1
	s.http2.init(s)
}

// key returns what a target's connections are kept by.
func (t *target) key(profile string) http1.Key {
	if t.scheme != schemeHTTPS {
		profile = ""
	}
	return http1.Key{Scheme: schemes[t.scheme], Address: t.addr, Profile: profile, Guarded: t.template != nil}
}

// authority returns the Host of requests that name none.
func (t *target) authority() string {
	if t.scheme == schemeUnix {
		return "localhost"
	}
	return t.addr
}

// roundTrip sends a request to a target by the protocol that it speaks. An upgrade is
// asked for by HTTP/1.1 in any case.
func (s *transports) roundTrip(ctx context.Context, t *target, profile string, q *http1.Request) (*reply, error) {
	key := t.key(profile)
	switch {
	case t.scheme == schemeH2C && q.Upgrade == "":
		return s.http2.roundTrip(ctx, key, q, nil)
	case t.scheme == schemeH2C:
		key.Scheme = schemes[schemeHTTP]
	case q.Upgrade == "" && s.http2.connected(key):
		a, err := s.http2.roundTrip(ctx, key, q, nil)
		if !errors.Is(err, errNotHTTP2) { // else it has changed its mind since
			return a, err
		}
	}
	r, err := s.http1.RoundTrip(ctx, key, q)
	if chosen, ok := errors.AsType[*choseHTTP2](err); ok {
		return s.http2.roundTrip(ctx, key, q, chosen.conn)
	} else if err != nil {
		return nil, err
	}
	return &reply{r.Status, r.Header, &r.Trailer, r, r}, nil
}

// choseHTTP2 is the error of a dial for HTTP/1.1 after which the upstream has chosen
// HTTP/2. Whoever gets the error has the connection.
type choseHTTP2 struct{ conn *tls.Conn }

func (*choseHTTP2) Error() string { return "the upstream has chosen HTTP/2" }

// dialHTTP1 connects for HTTP/1.1. A plain request offers HTTP/2, too.
func (s *transports) dialHTTP1(ctx context.Context, key http1.Key) (net.Conn, error) {
	if x := exchangeFrom(ctx); x != nil && x.upgrade != "" {
		return s.dial(ctx, key, nil, "http/1.1")
	}
	conn, err := s.dial(ctx, key, nil, "h2", "http/1.1")
	if secure, ok := conn.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol == "h2" {
		return nil, &choseHTTP2{secure}
	}
	return conn, err
}

// dial connects to an upstream, to speak one of the protocols there, within the dial
// timeout of the request's route. A health check has none: its context ends in time.
func (s *transports) dial(ctx context.Context, key http1.Key, wrap func(net.Conn) net.Conn, protocols ...string) (net.Conn, error) {
	e := dial.Endpoint{Network: "tcp", Address: key.Address, Guarded: key.Guarded, Wrap: wrap}
	switch key.Scheme {
	case schemes[schemeUnix]:
		e.Network = "unix"
	case schemes[schemeHTTPS]:
		e.TLS, e.Profile, e.Protocols = true, key.Profile, protocols
		if wrap == nil {
			e.Wrap = func(conn net.Conn) net.Conn { return &berthed{Conn: conn} } // in case that it speaks HTTP/2
		}
	}
	if x := exchangeFrom(ctx); x != nil {
		ctx = s.dialer.Context(ctx, x.match.options().DialTimeout, x.match.leaf.place)
	} else if deadline, ok := ctx.Deadline(); ok {
		ctx = s.dialer.Context(ctx, time.Until(deadline), nil)
	}
	return s.dialer.Dial(ctx, e)
}

// closeIdle closes the connections that nobody uses.
func (s *transports) closeIdle() {
	s.http1.CloseIdle()
	s.http2.closeIdle()
}

// close is closeIdle, also for connections that are in use now.
func (s *transports) close() {
	s.http1.Close()
	s.http2.closeIdle()
}

// A connection over HTTP/2 on which nothing has come for pingAfter is sent a ping,
// and is gone if that is not answered within pingTimeout.
const (
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
)

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

// closeIdle gives back the descriptors that nothing needs now.
func (p *Proxy) closeIdle() { p.transports.closeIdle() }
