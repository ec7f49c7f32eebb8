package slipswitch_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestFakeUpgrades reach no upstream, and what the client has sent behind one
// is never read as its next request.
func TestFakeUpgrades(t *testing.T) {
	u := answering(t, switching())
	r := route("/", u)
	r.Protocols = []string{"x-named"}
	g := startGateway(t, &slipswitch.Proxy{}, r)
	ws := func(lines ...string) string { return request("GET", "/a", lines...) }
	const (
		connection = "Connection: Upgrade"
		upgrade    = "Upgrade: websocket"
		version    = "Sec-WebSocket-Version: 13"
		keyLine    = "Sec-WebSocket-Key: " + key
	)
	for _, test := range []struct {
		name, raw string
		status    int
	}{
		{"POST", request("POST", "/a", connection, upgrade, version, keyLine), 400},
		{"HEAD", request("HEAD", "/a", connection, upgrade, version, keyLine), 400},
		{"body", ws(connection, upgrade, version, keyLine, "Content-Length: 3") + "abc", 400},
		{"chunked body", ws(connection, upgrade, version, keyLine, "Transfer-Encoding: chunked") + "0\r\n\r\n", 400},
		{"HTTP/1.0", strings.Replace(ws(connection, upgrade, version, keyLine), "HTTP/1.1", "HTTP/1.0", 1), 400},
		{"version 12", ws(connection, upgrade, "Sec-WebSocket-Version: 12", keyLine), 426},
		{"version 130", ws(connection, upgrade, "Sec-WebSocket-Version: 130", keyLine), 426},
		{"versions in a list", ws(connection, upgrade, "Sec-WebSocket-Version: 13, 12", keyLine), 426},
		{"no version", ws(connection, upgrade, keyLine), 426},
		{"two versions", ws(connection, upgrade, version, version, keyLine), 400},
		{"no key", ws(connection, upgrade, version), 400},
		{"two keys", ws(connection, upgrade, version, keyLine, keyLine), 400},
		{"empty key", ws(connection, upgrade, version, "Sec-WebSocket-Key: "), 400},
		{"short key", ws(connection, upgrade, version, "Sec-WebSocket-Key: YWJj"), 400},
		{"long key", ws(connection, upgrade, version, "Sec-WebSocket-Key: "+key[:22]+"AAAA=="), 400},
		{"no base64", ws(connection, upgrade, version, "Sec-WebSocket-Key: "+strings.Repeat("!", 22)+"=="), 400},
		{"base64 with stray bits", ws(connection, upgrade, version, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="), 400},
		{"key named in Connection", ws("Connection: Upgrade, Sec-WebSocket-Key", upgrade, version, keyLine), 400},
		{"named protocol with a body", ws(connection, "Upgrade: x-named", "Content-Length: 3") + "abc", 400},
		{"named protocol over HTTP/1.0", strings.Replace(ws(connection, "Upgrade: x-named"), "HTTP/1.1", "HTTP/1.0", 1), 400},
	} {
		client := g.dial()
		client.send(test.raw + request("GET", "/smuggled"))
		method, _, _ := strings.Cut(test.raw, " ")
		a := client.answer(method)
		if a.StatusCode != test.status || !a.Close {
			t.Errorf("%s: got %s, close %v; want %d, closed", test.name, a.Status, a.Close, test.status)
		}
		if test.status == 426 && (a.Header.Get("Sec-WebSocket-Version") != "13" || a.Header.Get("Upgrade") != "websocket") {
			t.Errorf("%s: got %v", test.name, a.Header)
		}
		if got, _ := client.rest(); got != "" && method != "HEAD" {
			t.Errorf("%s: behind the refusal came %q", test.name, got)
		}
		u.nothing()
	}
	client := g.dial() // net/http's reader hides the field
	client.send(ws(connection, upgrade, keyLine, "Sec-WebSocket-Version: 12"))
	if got, _ := client.rest(); !strings.HasPrefix(got, "HTTP/1.1 426 ") || !strings.Contains(got, "Connection: close\r\nConnection: upgrade\r\n") {
		t.Errorf("got %q", got)
	}
}

// TestIgnoredOffers are requests that a server may treat as if they offered
// nothing, and the upstream is not told.
func TestIgnoredOffers(t *testing.T) {
	u := answering(t, ok("plain"))
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	for _, lines := range [][]string{
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"},
		{"Connection: HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"},
		{"Connection: Upgrade", "Upgrade: h2c"},
		{"Connection: Upgrade", "Upgrade: TLS/1.0, HTTP/1.1"},
		{"Connection: Upgrade", "Upgrade: web\u017focket"}, // Unicode folding would make it one
		{"Connection: Upgrade", "Upgrade: web\u212aocket"},
		{"Connection: Upgrade", "Upgrade: websocket/13"},
		{"Connection: Upgrade", "Upgrade: websockets"},
		{"Connection: Upgrade", "Upgrade: x-named"}, // by another route
		{"Connection: Upgrade"},
		{"Connection: keep-alive", "Upgrade: websocket"},
		{"Connection: Upgrades", "Upgrade: websocket"},
		{"Connection: upgrad\u00e9", "Upgrade: websocket"},
		{"Upgrade: websocket"},
	} {
		client := g.dial()
		client.send(request("GET", "/a", append(lines, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: "+key)...))
		a := client.answer("GET")
		if a.StatusCode != 200 || a.body != "plain" {
			t.Errorf("%q: got %s", lines, a.Status)
		}
		got := u.only()
		for _, name := range []string{"Upgrade", "Connection", "Http2-Settings"} {
			if values, ok := got.Header[name]; ok {
				t.Errorf("%q: the upstream got %s: %q", lines, name, values)
			}
		}
		if h2c := strings.Contains(strings.Join(lines, ""), "h2c") || !strings.Contains(strings.Join(lines, ""), "Upgrade:"); a.Close == h2c {
			t.Errorf("%q: the connection is closed: %v", lines, a.Close)
		}
		client.Close()
	}
}

// TestEarlyBytes: what the client sends along with its handshake and what the
// upstream sends along with its 101, wherever that is cut, arrive in order.
func TestEarlyBytes(t *testing.T) {
	t.Parallel()
	const early, first, more = "\x81\x85\x01\x02\x03\x04dcofn", "\x81\x05hello", "\x81\x04more"
	reply := switching() + first + more
	cuts := make(chan int, 1)
	u := startScript(t, func(u *upstream, p *peer) bool {
		if r, err := p.request(); err != nil || r.ContentLength != 0 {
			return false
		}
		cut := <-cuts
		io.WriteString(p.TCPConn, reply[:cut])
		if cut < len(reply) {
			// The first part is on its own when the gateway has taken it.
			awaitSent(t, p)
			io.WriteString(p.TCPConn, reply[cut:])
		}
		return true
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	for cut := len(switching()) - 40; cut <= len(reply); cut++ {
		cuts <- cut
		client := g.dial()
		client.send(handshake("/a") + early)
		if a := client.answer("GET"); a.StatusCode != 101 {
			t.Fatalf("cut at %d: got %s", cut, a.Status)
		}
		client.expect(first + more)
		far := u.tunnel()
		far.expect(early)
		client.send(early)
		far.expect(early)
		far.Close()
		client.expectEOF()
		client.Close()
		if r := g.report(); r.ClientBytes != int64(2*len(early)) || r.UpstreamBytes != int64(len(first+more)) || r.UpstreamMessages != 2 {
			t.Errorf("cut at %d: got %+v", cut, r.Traffic)
		}
	}
}

// TestEarlyFloodArrives: more than any buffer on the way holds.
func TestEarlyFloodArrives(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	r := route("/", u)
	r.Protocols = []string{"x-raw"}
	g := startGateway(t, &slipswitch.Proxy{}, r)
	client := g.dial()
	flood := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		io.WriteString(client.TCPConn, handshake("/a")+string(flood))
		client.CloseWrite()
	}()
	if a := client.answer("GET"); a.StatusCode != 101 {
		t.Fatalf("got %s", a.Status)
	}
	far := u.tunnel()
	if got, err := far.rest(); got != string(flood) || err != nil {
		t.Errorf("got %d of %d bytes, %v", len(got), len(flood), err)
	}
	far.send("bye")
	far.Close()
	client.expect("bye")
	client.expectEOF()
}

// TestNamedProtocols pass where a route names them.
func TestNamedProtocols(t *testing.T) {
	u := answering(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: X-Raw/1\r\n\r\n")
	r := route("/", u)
	r.Protocols = []string{"x-raw/1"}
	g := startGateway(t, &slipswitch.Proxy{}, r)
	for _, method := range []string{"GET", "POST"} {
		a := g.do(request(method, "/a", "Connection: Upgrade", "Upgrade: X-RAW/1"))
		if a.StatusCode != 101 || a.Header.Get("Upgrade") != "X-RAW/1" {
			t.Errorf("%s: got %s %v", method, a.Status, a.Header)
		}
		if got := u.only(); got.Method != method || got.Header.Get("Upgrade") != "X-RAW/1" {
			t.Errorf("the upstream received %q", got.head)
		}
	}
}

// TestWrappedWriters: an upgrade needs the connection itself, and says so
// before it asks the upstream.
func TestWrappedWriters(t *testing.T) {
	t.Parallel()
	u := answering(t, switching())
	p := &slipswitch.Proxy{}
	g := startHandler(t, p, http.TimeoutHandler(p, time.Minute, ""), route("/", u))
	a := g.do(handshake("/a"))
	if a.StatusCode != 501 || !a.Close || a.Header.Get("Proxy-Status") == "" {
		t.Errorf("got %s %v; want 501", a.Status, a.Header)
	}
	if u.connections() > 0 {
		t.Error("the upstream was dialled")
	}

	// A framework's writer has a Hijack for whatever it wraps, and panics there.
	p = &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(claimer{unwrapper{w}}, r) })
	}}
	g = startHandler(t, p, http.TimeoutHandler(p, time.Minute, ""), route("/", u))
	if a := g.do(handshake("/a")); a.StatusCode != 501 {
		t.Errorf("got %s behind a writer that claims to be a Hijacker; want 501", a.Status)
	}
	if u.connections() > 0 {
		t.Error("the upstream was dialled")
	}

	p = &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(claimer{unwrapper{w}}, r) })
	}}
	g = startGateway(t, p, route("/", u))
	if a := g.do(handshake("/a")); a.StatusCode != 101 {
		t.Errorf("got %s; want 101", a.Status)
	}
}

type unwrapper struct{ http.ResponseWriter }

func (w unwrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type claimer struct{ unwrapper }

func (w claimer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

func (w claimer) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// TestWriterThatCannotFlush: what is to be flushed at once comes later then, but
// whole.
func TestWriterThatCannotFlush(t *testing.T) {
	t.Parallel()
	u := answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	p := &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(claimer{unwrapper{w}}, r) })
	}}
	g := startHandler(t, p, http.TimeoutHandler(p, time.Minute, ""), route("/", u))
	if a := g.get("/a"); a.StatusCode != 200 || a.body != "hello" || a.err != nil {
		t.Errorf("got %s %q, %v; want hello", a.Status, a.body, a.err)
	}
}

// TestFailedOpen: of a tunnel whose client cannot be told is nothing left: no
// connection, seat, place or report, whatever has become of its route and whoever
// has ended it meanwhile.
func TestFailedOpen(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		hijack func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error)
		status int // 0: none
	}{
		"no hijack":           {func(http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no") }, 501},
		"panic in the hijack": {func(http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) { panic(http.ErrAbortHandler) }, 0},
		"no buffer": {func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
			conn, _, err := http.NewResponseController(w).Hijack()
			return badWriter{conn, func() error { return nil }}, nil, err
		}, 0},
		"write error": {func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
			conn, buffered, err := http.NewResponseController(w).Hijack()
			return badWriter{conn, func() error { return errors.New("no") }}, buffered, err
		}, 0},
		"panic in the write": {func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
			conn, buffered, err := http.NewResponseController(w).Hijack()
			return badWriter{conn, func() error { panic(http.ErrAbortHandler) }}, buffered, err
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := startScript(t, func(u *upstream, p *peer) bool {
				if _, err := p.request(); err == nil {
					io.WriteString(p.TCPConn, switching())
					p.expectEOF()
					u.keep(received{})
				}
				return false
			})
			r := route("/a", u)
			r.OnDelete = slipswitch.ClosePolicy{Close: true}
			p := &slipswitch.Proxy{Limits: slipswitch.Limits{Tunnels: 1, TunnelsPerRoute: 1, TunnelsPerClient: 1, HandshakesPerRoute: 1}}
			g := startHandler(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					if recover() != nil {
						panic(http.ErrAbortHandler) // which the server does not log
					}
				}()
				p.ServeHTTP(hijacker{w, func() (net.Conn, *bufio.ReadWriter, error) {
					p.Drain(nil, 0, 1001, "")
					_, err := p.Router.Update(func(tx *slipswitch.Txn) error { tx.Delete(slipswitch.Key{Host: host, Path: "/a"}); return nil })
					if err != nil {
						t.Error(err)
					}
					return test.hijack(w)
				}}, r)
			}))
			for i := range 2 {
				g.put(r)
				client := g.dial()
				client.send(handshake("/a"))
				if test.status != 0 {
					if a := client.answer("GET"); a.StatusCode != test.status {
						t.Errorf("got %s; want %d", a.Status, test.status)
					}
				} else if got, err := client.rest(); got != "" || err != nil {
					t.Errorf("got %q, %v; want the end", got, err)
				}
				until(t, "the upstream sees the end", func() bool { return len(u.all()) == i+1 })
				until(t, "nothing is left", func() bool {
					return g.running.Load() == 0 && len(slices.Collect(g.Tunnels())) == 0 && slipswitch.Kept(g.Router) == 0
				})
			}
			if err := g.Shutdown(t.Context()); err != nil || len(g.reports) > 0 {
				t.Errorf("Shutdown: %v, and %d reports", err, len(g.reports))
			}
		})
	}
}

// A hijacker has a Hijack of its own.
type hijacker struct {
	http.ResponseWriter
	hijack func() (net.Conn, *bufio.ReadWriter, error)
}

func (w hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

// A badWriter does not write.
type badWriter struct {
	net.Conn
	write func() error
}

func (c badWriter) Write(b []byte) (int, error) { return len(b), c.write() }

// TestPanicsLeakNothing: neither connections nor places in the registry, which
// Shutdown would wait for.
func TestPanicsLeakNothing(t *testing.T) {
	t.Parallel()
	u := startScript(t, func(u *upstream, p *peer) bool {
		if _, err := p.request(); err == nil {
			io.WriteString(p.TCPConn, switching())
			p.rest()
			u.keep(received{})
		}
		return false
	})
	p := &slipswitch.Proxy{
		TunnelValue: func(*http.Request) any { panic(http.ErrAbortHandler) },
		Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/panic" {
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(w, r)
			})
		},
	}
	g := startGateway(t, p, route("/", u))
	for _, raw := range []string{handshake("/panic"), request("GET", "/panic"), handshake("/a")} {
		client := g.dial()
		client.send(raw)
		if got, _ := client.rest(); got != "" {
			t.Errorf("got %q", got)
		}
	}
	until(t, "the upstream sees the end", func() bool { return len(u.all()) == 1 })
}

// TestMiddlewareAnswers, and no upstream is asked.
func TestMiddlewareAnswers(t *testing.T) {
	u := answering(t, switching())
	p := &slipswitch.Proxy{Middleware: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "login", http.StatusUnauthorized) })
	}}
	g := startGateway(t, p, route("/", u))
	client := g.dial()
	client.send(handshake("/a") + request("GET", "/smuggled"))
	if a := client.answer("GET"); a.StatusCode != 401 || !a.Close {
		t.Errorf("got %s, close %v", a.Status, a.Close)
	}
	if got, _ := client.rest(); got != "" {
		t.Errorf("behind the refusal came %q", got)
	}
	if u.connections() > 0 {
		t.Error("the upstream was dialled")
	}
}

// TestMiddlewareReplacesRequest: with what it adds, but not with another
// request's context.
func TestMiddlewareReplacesRequest(t *testing.T) {
	u := startUpstream(t, func(r received) string {
		if r.Header.Get("Upgrade") != "" {
			return switching()
		}
		return ok(r.body)
	})
	type mark struct{}
	p := &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			match, ok := slipswitch.MatchFrom(r.Context())
			if !ok || match.Key().Path != "/" {
				t.Errorf("MatchFrom: %v, %v", match, ok)
			}
			switch r.URL.Path {
			case "/lost":
				r = r.WithContext(context.Background())
			case "/query":
				r.URL.RawQuery = "a HTTP/1.1\r\nX-Injected: 1\r\n\r\n"
			case "/host":
				r.Host = "a\r\nX-Injected: 1"
			case "/method":
				r.Method = "GET /evil HTTP/1.1\r\nX: "
			default:
				r = r.Clone(context.WithValue(r.Context(), mark{}, 1))
				r.Header.Set("X-Auth-User", "alice")
				r.Header.Del("Cookie")
			}
			next.ServeHTTP(w, r)
		})
	}}
	g := startGateway(t, p, route("/", u))
	for _, raw := range []string{handshake("/a", "Cookie: a"), request("POST", "/a", "Cookie: a", "Content-Length: 3") + "abc"} {
		if a := g.do(raw); a.StatusCode != 101 && a.body != "abc" {
			t.Errorf("got %s", a.Status)
		}
		if got := u.only(); got.Header.Get("X-Auth-User") != "alice" || got.Header["Cookie"] != nil {
			t.Errorf("the upstream received %q", got.head)
		}
	}
	for _, target := range []string{"/lost", "/query", "/host", "/method"} {
		for _, raw := range []string{handshake(target), request("GET", target)} {
			if a := g.do(raw); a.StatusCode != 500 {
				t.Errorf("%s: got %s; want 500", target, a.Status)
			}
		}
	}
	u.nothing()
}

// TestListsOfUpgrades: WebSocket is chosen from what a client offers, and nothing
// else is offered to the upstream. Another protocol is spelt as the client does.
func TestListsOfUpgrades(t *testing.T) {
	for _, test := range []struct {
		offer, want string
	}{
		{"Upgrade: websocket, h2c", "websocket"},
		{"Upgrade: h2c, WebSocket", "websocket"},
		{"Upgrade: h2c\r\nUpgrade: websocket", "websocket"},
		{"Upgrade: websocket\r\nUpgrade: websocket", "websocket"},
		{"Upgrade: SPDY/3.1", "SPDY/3.1"},
	} {
		u := startUpstream(t, func(r received) string {
			return strings.Replace(switching(), "websocket", r.Header.Get("Upgrade"), 1)
		})
		r := route("/", u)
		r.Protocols = []string{"spdy/3.1"}
		g := startGateway(t, &slipswitch.Proxy{}, r)
		a := g.do(request("GET", "/", "Connection: Upgrade", test.offer, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: "+key))
		if a.StatusCode != 101 {
			t.Errorf("%s: got %s %s", test.offer, a.Status, a.body)
			continue
		}
		if got := u.only().Header["Upgrade"]; !slices.Equal(got, []string{test.want}) {
			t.Errorf("%s: the upstream was offered %q; want %q", test.offer, got, test.want)
		}
	}
}
