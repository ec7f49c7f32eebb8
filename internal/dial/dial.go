// Package dial connects to upstreams, for plain requests and for tunnels. It
// knows endpoints, never routes.
//
// A dial passes four gates, in this order. Dials in progress are bounded, in all
// and by group. A name that came with a request must not lead to a forbidden
// address, even if it resolved to another one before. The caller, which counts
// descriptors, may refuse the connection. TLS is spoken as the endpoint's profile
// says.
//
// A dial that fails has sent nothing of a request: see Error.
package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// A Func connects, as that of a net.Dialer does.
type Func = func(ctx context.Context, network, address string) (net.Conn, error)

// A Dialer connects to endpoints. Its zero value is ready. The fields must not be
// changed after its first use; its methods may be called concurrently.
type Dialer struct {
	// Connect makes connections. Nil: a net.Dialer, with keepalive.
	Connect Func

	// Allowed are the addresses that guarded endpoints may lead to. Nil: all but
	// those that no upstream should have, see [Endpoint].
	Allowed []netip.Prefix

	// Profiles are the TLS configurations by name. The one named "" need not be there.
	Profiles map[string]*tls.Config

	// MaxDials bounds the dials in progress, and MaxDialsPerGroup those of one group.
	// Zero or less: no limit.
	MaxDials, MaxDialsPerGroup int

	// Over returns the error for a dial over a limit: that of one group, or the other.
	// It must be set if there is a limit.
	Over func(group bool) error

	// Accept, if set, is asked about each new connection before anything is sent. An
	// error closes it.
	Accept func(net.Conn) error

	// Panicked returns the error for a panic of Connect or of a profile's functions,
	// as which it is told. Nil: the panic as a text.
	Panicked func(in string, v any) error

	guard  guard
	bounds bounds
}

// An Endpoint is where to connect to, and how.
type Endpoint struct {
	Network string // tcp or unix
	Address string // host and port, or the path of a socket

	// Guarded says that a part of the name came with a request. It is then refused if
	// it leads to this machine, to link-local or multicast addresses, to where clouds
	// keep their secrets, or, with Dialer.Allowed, to any other address.
	Guarded bool

	TLS       bool
	Profile   string   // of TLS
	Protocols []string // to offer by ALPN

	// Wrap, if set, wraps the connection below TLS. What it returns is closed if TLS
	// fails.
	Wrap func(net.Conn) net.Conn
}

// An Error is a failure to connect; not a byte of a request was sent.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

const (
	defaultTimeout = 10 * time.Second
	tlsTimeout     = 30 * time.Second
)

// keepAlive finds upstreams whose machine is gone.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

var plain = net.Dialer{KeepAliveConfig: keepAlive}

// settings are what a context says about the dials that it is for. An
// http.Transport's does not end with the request, but has its values.
type settings struct {
	timeout time.Duration
	group   any
}

type settingsKey struct{}

// Context returns a context for dials of a group, nil being none, each of which may
// take so long, TLS not included. Zero: 10 s.
func (d *Dialer) Context(ctx context.Context, timeout time.Duration, group any) context.Context {
	if d.MaxDialsPerGroup <= 0 {
		group = nil
	}
	if timeout == 0 && group == nil {
		return ctx
	}
	return context.WithValue(ctx, settingsKey{}, settings{timeout, group})
}

// Dial connects to an endpoint. The connection of one with TLS is a *tls.Conn that
// has shaken hands.
//
// A failure to connect is an [*Error]. An error of Over, and a profile that is not
// there, are none.
func (d *Dialer) Dial(ctx context.Context, e Endpoint) (net.Conn, error) {
	said, _ := ctx.Value(settingsKey{}).(settings)
	if limits := d.MaxDials > 0 || d.MaxDialsPerGroup > 0; limits {
		if err := d.enter(said.group); err != nil {
			return nil, err
		}
		defer d.leave(said.group)
	}
	var profile *tls.Config
	if e.TLS {
		var err error
		if profile, err = d.Profile(e.Profile); err != nil {
			return nil, err
		}
	}
	conn, err := d.connect(ctx, e, said.timeout)
	if err != nil {
		return nil, err
	}
	if e.Wrap != nil {
		conn = e.Wrap(conn)
	}
	if !e.TLS {
		return conn, nil
	}
	return d.secure(ctx, conn, e, profile)
}

// Profile returns the TLS configuration of that name, or an error.
func (d *Dialer) Profile(name string) (*tls.Config, error) {
	config := d.Profiles[name]
	switch {
	case config != nil:
		return config, nil
	case name == "":
		return new(tls.Config), nil
	}
	return nil, fmt.Errorf("the route names the TLS profile %q, which Proxy.TLSProfiles has not", name)
}

// connect connects within a time.
func (d *Dialer) connect(ctx context.Context, e Endpoint, timeout time.Duration) (net.Conn, error) {
	if timeout == 0 {
		timeout = defaultTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := d.guarded(bounded, e)
	if err == nil && conn == nil {
		err = errors.New("DialContext has returned neither a connection nor an error")
	}
	if err == nil && d.Accept != nil {
		if err = d.Accept(conn); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		if bounded.Err() != nil && ctx.Err() == nil {
			err = errors.Join(err, context.DeadlineExceeded)
		}
		return nil, &Error{err}
	}
	return conn, nil
}

// guarded connects, but to no forbidden address.
func (d *Dialer) guarded(ctx context.Context, e Endpoint) (conn net.Conn, err error) {
	defer func() {
		if v := recover(); v != nil {
			conn, err = nil, d.panicked("DialContext", v)
		}
	}()
	switch {
	case d.Connect != nil && e.Guarded:
		return d.connectGuarded(ctx, e.Network, e.Address)
	case d.Connect != nil:
		return d.Connect(ctx, e.Network, e.Address)
	case e.Guarded:
		guarded := net.Dialer{KeepAliveConfig: keepAlive, ControlContext: d.control}
		return guarded.DialContext(ctx, e.Network, e.Address)
	}
	return plain.DialContext(ctx, e.Network, e.Address)
}

func (d *Dialer) panicked(in string, v any) error {
	if d.Panicked == nil {
		return fmt.Errorf("%s has panicked: %v", in, v)
	}
	return d.Panicked(in, v)
}

// secure speaks TLS on a connection to an endpoint.
func (d *Dialer) secure(ctx context.Context, conn net.Conn, e Endpoint, profile *tls.Config) (_ net.Conn, err error) {
	config := profile.Clone()
	config.NextProtos = e.Protocols
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(e.Address)
	}
	secure := tls.Client(conn, config)
	defer func() {
		if v := recover(); v != nil { // of the profile's own functions
			conn.Close()
			err = &Error{d.panicked("TLS profile", v)}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &Error{err}
	}
	return secure, nil
}
