package slipswitch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A dialer connects to upstreams, for plain requests and for tunnels alike.
// It has one transport per TLS profile, since a transport's pool knows only
// addresses.
type dialer struct {
	connect    func(ctx context.Context, network, address string) (net.Conn, error)
	profiles   map[string]*tls.Config
	transports map[string]*http.Transport
}

// A dialError is a failure to connect; not a byte of a request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

const (
	defaultDialTimeout      = 10 * time.Second
	defaultHandshakeTimeout = 30 * time.Second
)

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
	d.connect = p.DialContext
	if d.connect == nil {
		d.connect = new(net.Dialer).DialContext
	}
	d.profiles = map[string]*tls.Config{"": {}}
	for name, config := range p.TLSProfiles {
		if config != nil {
			d.profiles[name] = config
		}
	}
	d.transports = make(map[string]*http.Transport, len(d.profiles))
	for name, config := range d.profiles {
		d.transports[name] = &http.Transport{
			Proxy:              nil, // never by the gateway's environment
			DisableCompression: true,
			DialContext:        d.dial,
			DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return d.dialTLS(ctx, network, address, config, "h2", "http/1.1")
			},
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           4096,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 1 << 20,
		}
	}
}

func (d *dialer) profile(name string) (*tls.Config, error) {
	config, ok := d.profiles[name]
	if !ok {
		return nil, fmt.Errorf("the route names the TLS profile %q, which Proxy.TLSProfiles has not", name)
	}
	return config, nil
}

func (d *dialer) transport(profile string) (*http.Transport, error) {
	if _, err := d.profile(profile); err != nil {
		return nil, err
	}
	return d.transports[profile], nil
}

// dialTarget connects to a target for a tunnel.
func (d *dialer) dialTarget(ctx context.Context, t *target, profile string) (net.Conn, error) {
	if !t.secure {
		return d.dial(ctx, "tcp", t.addr)
	}
	config, err := d.profile(profile)
	if err != nil {
		return nil, err
	}
	return d.dialTLS(ctx, "tcp", t.addr, config, "http/1.1")
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

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	timeout, ok := ctx.Value(dialTimeoutKey{}).(time.Duration)
	if !ok {
		timeout = defaultDialTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := d.connect(bounded, network, address)
	if err != nil {
		if bounded.Err() != nil && ctx.Err() == nil {
			err = errors.Join(err, context.DeadlineExceeded)
		}
		return nil, &dialError{err}
	}
	return conn, nil
}

func (d *dialer) dialTLS(ctx context.Context, network, address string, profile *tls.Config, alpn ...string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := profile.Clone()
	config.NextProtos = alpn
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	secure := tls.Client(conn, config)
	ctx, cancel := context.WithTimeout(ctx, defaultHandshakeTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &dialError{err}
	}
	return secure, nil
}

func (d *dialer) closeIdle() {
	for _, transport := range d.transports {
		transport.CloseIdleConnections()
	}
}
