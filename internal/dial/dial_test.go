package dial_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch/internal/dial"
)

// pipes connects everybody to nobody.
func pipes(context.Context, string, string) (net.Conn, error) {
	here, _ := net.Pipe()
	return here, nil
}

var errOver, errGroupOver = errors.New("too many"), errors.New("too many of a group")

func over(group bool) error {
	if group {
		return errGroupOver
	}
	return errOver
}

// TestBounds: what is being dialed is bounded, what is connected is not, and of
// groups that dial nothing nothing is kept.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := &dial.Dialer{MaxDials: 3, MaxDialsPerGroup: 2, Over: over,
			Connect: func(ctx context.Context, network, address string) (net.Conn, error) {
				<-release
				return pipes(ctx, network, address)
			}}
		group := func(name string) context.Context { return d.Context(t.Context(), time.Second, name) }
		try := func(ctx context.Context) error {
			_, err := d.Dial(ctx, dial.Endpoint{Network: "tcp", Address: "a:80"})
			return err
		}
		for _, name := range []string{"one", "one", "two"} {
			go func() {
				if err := try(group(name)); err != nil {
					t.Errorf("%s: got %v", name, err)
				}
			}()
		}
		synctest.Wait()
		if err := try(t.Context()); err != errOver {
			t.Errorf("the fourth: got %v; want %v", err, errOver)
		}
		d.MaxDials = 0
		if err := try(group("one")); err != errGroupOver {
			t.Errorf("the third of a group: got %v; want %v", err, errGroupOver)
		}
		close(release)
		synctest.Wait()
		if err := try(group("one")); err != nil {
			t.Errorf("afterwards: got %v", err)
		}
		if n := d.Groups(); n != 0 {
			t.Errorf("%d groups are remembered", n)
		}
	})
}

// TestTimeout is that of the context's settings, or 10 s, and no other one's.
func TestTimeout(t *testing.T) {
	for name, test := range map[string]struct {
		timeout, ctx, want time.Duration
		late               bool // its own timeout has passed
	}{
		"default":   {0, time.Hour, 10 * time.Second, true},
		"said":      {3 * time.Second, time.Hour, 3 * time.Second, true},
		"cancelled": {3 * time.Second, time.Second, time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &dial.Dialer{Connect: func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, io.ErrNoProgress // in words of its own
				}}
				ctx, cancel := context.WithTimeout(t.Context(), test.ctx)
				defer cancel()
				began := time.Now()
				_, err := d.Dial(d.Context(ctx, test.timeout, nil), dial.Endpoint{Network: "tcp", Address: "a:80"})
				if took := time.Since(began); took != test.want {
					t.Errorf("it took %v; want %v", took, test.want)
				}
				if _, ok := errors.AsType[*dial.Error](err); !ok || errors.Is(err, context.DeadlineExceeded) != test.late {
					t.Errorf("got %#v; late: want %v", err, test.late)
				}
			})
		})
	}
}

// closed notes that a connection was closed.
type closed struct {
	net.Conn
	remote net.Addr
	n      int
}

func (c *closed) Close() error         { c.n++; return c.Conn.Close() }
func (c *closed) RemoteAddr() net.Addr { return c.remote }

// TestRefused: a connection that may not be is closed before anything is sent.
func TestRefused(t *testing.T) {
	refused := errors.New("no more descriptors")
	private := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for name, test := range map[string]struct {
		dialer  *dial.Dialer
		guarded bool
		remote  string
		want    string // in the error; "": none
	}{
		"accepted":   {&dial.Dialer{}, false, "127.0.0.1:80", ""},
		"refused":    {&dial.Dialer{Accept: func(net.Conn) error { return refused }}, false, "10.0.0.1:80", refused.Error()},
		"loopback":   {&dial.Dialer{}, true, "127.0.0.1:80", "127.0.0.1"},
		"elsewhere":  {&dial.Dialer{}, true, "198.51.100.7:80", ""},
		"allowed":    {&dial.Dialer{Allowed: private}, true, "10.0.0.7:80", ""},
		"disallowed": {&dial.Dialer{Allowed: private}, true, "198.51.100.7:80", "198.51.100.7"},
		"unguarded":  {&dial.Dialer{Allowed: private}, false, "198.51.100.7:80", ""},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			conn := &closed{here, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(test.remote)), 0}
			d := test.dialer
			d.Connect = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
			_, err := d.Dial(t.Context(), dial.Endpoint{Network: "tcp", Address: "ide.example.:80", Guarded: test.guarded})
			switch {
			case test.want == "" && (err != nil || conn.n != 0):
				t.Errorf("got %v, closed %d times; want it", err, conn.n)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || conn.n != 1):
				t.Errorf("got %v, closed %d times; want %q, closed once", err, conn.n, test.want)
			}
			here.Close()
		})
	}
}

// TestPanics are errors, whoever's function it is.
func TestPanics(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	for name, d := range map[string]*dial.Dialer{
		"Connect": {Connect: func(context.Context, string, string) (net.Conn, error) { panic("oops") }},
		"profile": {Profiles: map[string]*tls.Config{"": {InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error { panic("oops") }}}},
	} {
		told := ""
		d.Panicked = func(in string, v any) error { told = in; return errors.New("a panic") }
		_, err := d.Dial(t.Context(), dial.Endpoint{Network: "tcp", Address: server.Listener.Addr().String(), TLS: true})
		if _, ok := errors.AsType[*dial.Error](err); !ok || err.Error() != "a panic" || told == "" {
			t.Errorf("%s: got %v, told of %q", name, err, told)
		}
	}
}

// TestTLS: what a profile says, for the endpoint's name, above what wraps the
// connection.
func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
	d := &dial.Dialer{Profiles: map[string]*tls.Config{"trusting": trusting, "nil": nil}}
	e := dial.Endpoint{Network: "tcp", Address: server.Listener.Addr().String(), TLS: true}
	var below *closed
	for _, test := range []struct {
		profile   string
		protocols []string
		want      string // the protocol; "": none is connected
		dial      bool   // whether it is a failure to connect
	}{
		{"trusting", []string{"h2", "http/1.1"}, "h2", false},
		{"trusting", []string{"http/1.1"}, "http/1.1", false},
		{"", []string{"http/1.1"}, "", true}, // the system trusts nobody here
		{"nil", nil, "", false},
		{"missing", nil, "", false},
	} {
		below = nil
		e.Profile, e.Protocols = test.profile, test.protocols
		e.Wrap = func(conn net.Conn) net.Conn { below = &closed{Conn: conn}; return below }
		conn, err := d.Dial(t.Context(), e)
		if test.want == "" {
			_, isDial := errors.AsType[*dial.Error](err)
			if err == nil || isDial != test.dial || test.dial && below.n == 0 {
				t.Errorf("%q: got %v, below it %+v", test.profile, err, below)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.profile, err)
			continue
		}
		secure := conn.(*tls.Conn)
		if got := secure.ConnectionState().NegotiatedProtocol; got != test.want || secure.NetConn() != net.Conn(below) {
			t.Errorf("%q: got %q over %T; want %q", test.profile, got, secure.NetConn(), test.want)
		}
		conn.Close()
	}
}
