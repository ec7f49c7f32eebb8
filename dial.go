package slipswitch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/slipswitch/slipswitch/internal/linger"
)

// A dialer connects to upstreams, for plain requests and for tunnels alike. A
// transport's pool knows only addresses, so there is a transport for each way of
// connecting: no client certificate and no guard is got around by a connection
// that somebody else has left.
type dialer struct {
	panicked   func(hook string, v any) error
	guard      guard
	dials      dials
	ways       [2]dialFunc // to fixed names; to captured ones
	profiles   map[string]*tls.Config
	transports map[way]*http.Transport
	berths     berths
	lingering  linger.Conns
}

// A way is what two upstreams must have in common to share connections.
type way struct {
	scheme  scheme
	guarded bool
	profile string // of https
}

func (t *target) way(profile string) way {
	if t.scheme != schemeHTTPS {
		profile = ""
	}
	return way{t.scheme, t.template != nil, profile}
}

// A dialError is a failure to connect; not a byte of a request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

const (
	defaultDialTimeout      = 10 * time.Second
	defaultHandshakeTimeout = 30 * time.Second
)

// keepAlive finds upstreams whose machine is gone.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

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

func (r *Route) dialTimeout() time.Duration {
	if r.DialTimeout > 0 {
		return r.DialTimeout
	}
	return defaultDialTimeout
}

func (r *Route) handshakeTimeout() time.Duration {
	if r.HandshakeTimeout > 0 {
		return r.HandshakeTimeout
	}
	return max(defaultHandshakeTimeout, r.DialTimeout)
}

func (d *dialer) init(p *Proxy) {
	d.panicked = p.panicked
	d.guard.allowed = p.TemplateAddresses
	d.dials.limits = &p.Limits
	d.dials.over = func(limit string) error {
		return p.overLimit(limit, "too many connections are being opened", time.Second)
	}
	if d.ways = [2]dialFunc{p.DialContext, d.guard.watched(p.DialContext)}; p.DialContext == nil {
		plain := net.Dialer{KeepAliveConfig: keepAlive}
		guarded := net.Dialer{KeepAliveConfig: keepAlive, ControlContext: d.guard.control}
		d.ways = [2]dialFunc{plain.DialContext, guarded.DialContext}
	}
	d.profiles = map[string]*tls.Config{"": {}}
	for name, config := range p.TLSProfiles {
		if config != nil {
			d.profiles[name] = config
		}
	}
	d.transports = make(map[way]*http.Transport)
	for _, guarded := range []bool{false, true} {
		d.add(way{schemeHTTP, guarded, ""}, &http.Transport{})
		h2c := &http.Transport{Protocols: new(http.Protocols)}
		h2c.Protocols.SetUnencryptedHTTP2(true)
		d.add(way{schemeH2C, guarded, ""}, h2c)
		for name, config := range d.profiles {
			w := way{schemeHTTPS, guarded, name}
			d.add(w, &http.Transport{DialTLSContext: d.berthing(w, config), ForceAttemptHTTP2: true})
		}
	}
	d.add(way{schemeUnix, false, ""}, &http.Transport{})
}

func (d *dialer) add(w way, t *http.Transport) {
	t.Proxy = nil // never by the gateway's environment
	t.DisableCompression = true
	t.DialContext = d.berthing(w, nil)
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	t.MaxIdleConns = 4096
	t.MaxIdleConnsPerHost = 64
	t.IdleConnTimeout = 90 * time.Second
	t.MaxResponseHeaderBytes = 1 << 20
	d.transports[w] = t
}

// berthing returns what a transport dials by: to the address that stands in the
// berth of that name.
func (d *dialer) berthing(w way, config *tls.Config) dialFunc {
	return func(ctx context.Context, network, name string) (net.Conn, error) {
		done, err := d.dials.take(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
		b := d.berths.takeNamed(name)
		if b == nil {
			return nil, &dialError{context.Canceled}
		}
		if w.scheme == schemeUnix {
			network = "unix"
		}
		conn, err := d.dial(ctx, network, b.addr, w.guarded)
		if err != nil {
			d.berths.leave(b)
			return nil, err
		}
		conn = &berthed{Conn: conn, leave: func() { d.berths.leave(b) }}
		if config == nil {
			return conn, nil
		}
		return d.secure(ctx, conn, b.addr, config, "h2", "http/1.1")
	}
}

// roundTrip sends a plain request to a target. Of the request's URL the host is
// the transport's.
func (d *dialer) roundTrip(t *target, profile string, r *http.Request) (*http.Response, error) {
	transport, err := d.transport(t, profile)
	if err != nil {
		return nil, err
	}
	if r.Host == "" {
		if r.Host = t.addr; t.scheme == schemeUnix {
			r.Host = "localhost"
		}
	}
	b := d.berths.take(t.addr)
	defer d.berths.leave(b) // the connection has it now
	r.URL.Host = b.name
	return transport.RoundTrip(r)
}

func (d *dialer) profile(name string) (*tls.Config, error) {
	config, ok := d.profiles[name]
	if !ok {
		return nil, fmt.Errorf("the route names the TLS profile %q, which Proxy.TLSProfiles has not", name)
	}
	return config, nil
}

func (d *dialer) transport(t *target, profile string) (*http.Transport, error) {
	if t.scheme == schemeHTTPS {
		if _, err := d.profile(profile); err != nil {
			return nil, err
		}
	}
	return d.transports[t.way(profile)], nil
}

// dialTarget connects to a target for a tunnel.
func (d *dialer) dialTarget(ctx context.Context, t *target, profile string) (net.Conn, error) {
	done, err := d.dials.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	guarded := t.template != nil
	switch t.scheme {
	case schemeUnix:
		return d.dial(ctx, "unix", t.addr, guarded)
	case schemeHTTPS:
		config, err := d.profile(profile)
		if err != nil {
			return nil, err
		}
		conn, err := d.dial(ctx, "tcp", t.addr, guarded)
		if err != nil {
			return nil, err
		}
		return d.secure(ctx, conn, t.addr, config, "http/1.1")
	}
	return d.dial(ctx, "tcp", t.addr, guarded)
}

// dialContext returns a request's context with what its dials must know.
func (p *Proxy) dialContext(ctx context.Context, m Match) context.Context {
	return p.dialer.dials.withPlace(withDialTimeout(ctx, m.options().dialTimeout()), m.leaf.place)
}

// A transport dials with a context that does not end with the request, but has
// its values: this one is the route's dial timeout.
type dialTimeoutKey struct{}

func withDialTimeout(ctx context.Context, timeout time.Duration) context.Context {
	if timeout == defaultDialTimeout {
		return ctx
	}
	return context.WithValue(ctx, dialTimeoutKey{}, timeout)
}

func (d *dialer) dial(ctx context.Context, network, address string, guarded bool) (net.Conn, error) {
	connect := d.ways[0]
	if guarded {
		connect = d.ways[1]
	}
	timeout, ok := ctx.Value(dialTimeoutKey{}).(time.Duration)
	if !ok {
		timeout = defaultDialTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := connect(bounded, network, address)
	if err != nil {
		if bounded.Err() != nil && ctx.Err() == nil {
			err = errors.Join(err, context.DeadlineExceeded)
		}
		return nil, &dialError{err}
	}
	return conn, nil
}

// secure speaks TLS on a connection to an address.
func (d *dialer) secure(ctx context.Context, conn net.Conn, address string, profile *tls.Config, alpn ...string) (_ net.Conn, err error) {
	config := profile.Clone()
	config.NextProtos = alpn
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	secure := tls.Client(conn, config)
	defer func() {
		if v := recover(); v != nil { // of the profile's own functions
			conn.Close()
			err = &dialError{d.panicked("TLS profile", v)}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, defaultHandshakeTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &dialError{err}
	}
	return secure, nil
}

// closeIdle gives back the descriptors that nothing needs now.
func (d *dialer) closeIdle() {
	d.lingering.HangUp()
	for _, transport := range d.transports {
		transport.CloseIdleConnections()
	}
}
