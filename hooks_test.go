package slipswitch_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// wantPanic wants the log to tell of a hook's panic, and where it was.
func wantPanic(t *testing.T, log *logBuffer, hook string) {
	t.Helper()
	until(t, "the log tells of "+hook, func() bool {
		got := log.String()
		return strings.Contains(got, "a hook has panicked") && strings.Contains(got, hook) && strings.Contains(got, "oops") &&
			strings.Contains(got, "hooks_test.go")
	})
}

// TestPanicsOfReports: the next reports come nevertheless.
func TestPanicsOfReports(t *testing.T) {
	t.Parallel()
	var log logBuffer
	var reports, bursts atomic.Int64
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{
		Logger:        slog.New(slog.NewTextHandler(&log, nil)),
		TunnelClosed:  func(slipswitch.CloseReport) { reports.Add(1); panic("oops") },
		BurstDetected: func(slipswitch.Burst) { bursts.Add(1); panic("oops") },
	}, route("/a", u))
	const n = 12 // enough for a burst
	for range n {
		client, far := g.open("/a", u)
		client.Close()
		far.Close()
	}
	until(t, "all reports are handed over", func() bool { return reports.Load() == n })
	until(t, "a burst is", func() bool { return bursts.Load() > 0 })
	wantPanic(t, &log, "TunnelClosed")
	wantPanic(t, &log, "BurstDetected")
}

func TestPanicOfReauthorize(t *testing.T) {
	t.Parallel()
	var log logBuffer
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{
		Logger:           slog.New(slog.NewTextHandler(&log, nil)),
		ReauthorizeEvery: time.Millisecond,
		Reauthorize:      func(context.Context, *slipswitch.Tunnel) error { panic("oops") },
	}, route("/a", u))
	client, far := g.open("/a", u)
	both(client, far, 1008, "login expired")
	g.wantReport(slipswitch.WhyLoginExpired)
	wantPanic(t, &log, "Reauthorize")
}

// TestPanicsOfDials: of DialContext, and of what a TLS profile has.
func TestPanicsOfDials(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	for hook, p := range map[string]*slipswitch.Proxy{
		"DialContext": {DialContext: func(context.Context, string, string) (net.Conn, error) { panic("oops") }},
		"TLS profile": {TLSProfiles: map[string]*tls.Config{"": {
			InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error { panic("oops") }}}},
	} {
		var log logBuffer
		p.Logger = slog.New(slog.NewTextHandler(&log, nil))
		g := startGateway(t, p, slipswitch.Route{Path: "/", Upstreams: slipswitch.To(secure.URL)})
		for _, raw := range []string{request("GET", "/"), handshake("/")} {
			if a := g.do(raw); a.StatusCode != 502 {
				t.Errorf("%s: got %s; want 502", hook, a.Status)
			}
		}
		wantPanic(t, &log, hook)
	}
}

// TestDialWithoutConnection: DialContext may be wrong, and ends nothing else.
func TestDialWithoutConnection(t *testing.T) {
	t.Parallel()
	var log logBuffer
	g := startGateway(t, &slipswitch.Proxy{
		Logger:      slog.New(slog.NewTextHandler(&log, nil)),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil },
	}, slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://10.0.0.7")}, slipswitch.Route{Path: "/named", Upstreams: slipswitch.To("http://{1}.ide.example.")})
	for _, raw := range []string{request("GET", "/"), handshake("/"), request("GET", "/named/a/"), handshake("/named/a/")} {
		if a := g.do(raw); a.StatusCode != 502 {
			t.Errorf("got %s; want 502", a.Status)
		}
	}
	until(t, "the log tells why", func() bool { return strings.Contains(log.String(), "neither a connection nor an error") })
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("oops") }
func (panicking) Close() error             { return nil }

// TestMiddlewareBodies: whatever Middleware sets as the body.
func TestMiddlewareBodies(t *testing.T) {
	t.Parallel()
	var log logBuffer
	u := startUpstream(t, func(r received) string { return ok(r.body, "Connection: close") })
	h2 := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	h2.Config.Protocols = new(http.Protocols)
	h2.Config.Protocols.SetUnencryptedHTTP2(true)
	h2.Start()
	t.Cleanup(h2.Close)
	p := &slipswitch.Proxy{
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Query().Get("body") {
				case "nil":
					r.Body = nil
				case "none":
					r.Body = http.NoBody
				case "other":
					r.Body, r.ContentLength = io.NopCloser(strings.NewReader("other")), 5
				case "panicking":
					r.Body = panicking{}
				}
				next.ServeHTTP(w, r)
			})
		},
	}
	g := startGateway(t, p, route("/one", u), slipswitch.Route{Path: "/two", MaxBody: 1000, Upstreams: slipswitch.To(strings.Replace(h2.URL, "http:", "h2c:", 1))})
	for _, path := range []string{"/one", "/two"} {
		for query, want := range map[string]string{"": "200 abc", "nil": "200 ", "none": "200 ", "other": "200 other", "panicking": "500 "} {
			for _, raw := range []string{
				request("POST", path+"?body="+query, "Content-Length: 3") + "abc",
				request("POST", path+"?body="+query, "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n",
			} {
				a := g.do(raw)
				if got := a.Status[:3] + " " + a.body; got != want && !(want == "500 " && a.StatusCode == 500) {
					t.Errorf("%s?body=%s: got %s; want %s", path, query, got, want)
				}
			}
		}
	}
	wantPanic(t, &log, "Middleware")
}

// TestPanicOfAFlush: it is on a goroutine of its own.
func TestPanicOfAFlush(t *testing.T) {
	t.Parallel()
	var log logBuffer
	next := make(chan struct{})
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
		<-next
		io.WriteString(p.TCPConn, "hello")
		return false
	})
	p := &slipswitch.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil)), Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(badFlusher{unwrapper{w}}, r) })
	}}
	g := startGateway(t, p, route("/", u))
	client := g.dial()
	client.send(request("GET", "/"))
	until(t, "the log tells of it", func() bool { return strings.Contains(log.String(), "a hook has panicked") })
	close(next)
	if a := client.answer("GET"); a.body != "hello" || a.err != nil {
		t.Errorf("got %s %q, %v; want hello", a.Status, a.body, a.err)
	}
}

type badFlusher struct{ unwrapper }

func (badFlusher) Flush() { panic("oops") }
