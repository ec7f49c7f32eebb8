package slipswitch_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// The tests of the Proxy speak raw bytes over real sockets, since net/http's
// client would tidy up what they send, and its server what they look at.

// wait is how long a test waits for what must come.
const wait = 20 * time.Second

// host is what the tests' routes and requests are for.
const host = "ide.example.com"

// A peer is one end of a raw connection.
type peer struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	return &peer{conn.(*net.TCPConn), t, bufio.NewReader(conn)}
}

func (p *peer) Read(b []byte) (int, error) { return p.r.Read(b) }

// send writes all of s.
func (p *peer) send(s string) {
	p.t.Helper()
	p.SetWriteDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(p.TCPConn, s); err != nil {
		p.t.Errorf("send: %v", err)
	}
}

// expect reads what must come next.
func (p *peer) expect(want string) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(wait))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p.r, got); err != nil || string(got) != want {
		p.t.Errorf("got %.200q, %v; want %.200q", got[:n], err, want)
	}
}

// rest reads what comes up to the end of the stream, which must come.
func (p *peer) rest() (string, error) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(wait))
	b, err := io.ReadAll(p.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Error("the stream does not end")
	}
	return string(b), err
}

// expectEOF wants the stream to end here.
func (p *peer) expectEOF() {
	p.t.Helper()
	if got, err := p.rest(); got != "" || err != nil {
		p.t.Errorf("got %.200q, %v; want EOF", got, err)
	}
}

// expectReset wants the connection to be reset, and returns what came before.
func (p *peer) expectReset() string {
	p.t.Helper()
	got, err := p.rest()
	if !errors.Is(err, syscall.ECONNRESET) {
		p.t.Errorf("got %.200q, %v; want a reset", got, err)
	}
	return got
}

// leave waits for anything, a Close frame or the end, and closes.
func (p *peer) leave() {
	p.SetReadDeadline(time.Now().Add(wait))
	p.r.ReadByte()
	p.Close()
}

// reset closes the connection with a RST.
func (p *peer) reset() {
	p.SetLinger(0)
	p.Close()
}

// head reads up to the first empty line.
func (p *peer) head() (string, error) {
	p.SetReadDeadline(time.Now().Add(wait))
	var head strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// An answer is a response, read to its end.
type answer struct {
	*http.Response
	body string
	err  error // of reading the body
}

// answer reads the final response to a request.
func (p *peer) answer(method string) answer {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(wait))
	for {
		r, err := http.ReadResponse(p.r, &http.Request{Method: method})
		if err != nil {
			p.t.Fatalf("no response: %v", err)
		}
		if r.StatusCode >= 200 || r.StatusCode == http.StatusSwitchingProtocols {
			body, err := io.ReadAll(r.Body)
			return answer{r, string(body), err}
		}
	}
}

// A gateway is a Proxy that serves on a socket.
type gateway struct {
	*slipswitch.Proxy
	t       testing.TB
	addr    string
	server  *http.Server
	running atomic.Int64 // requests
	log     logBuffer    // the server's
	reports chan slipswitch.CloseReport
}

// A logBuffer is a bytes.Buffer for many writers.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startGateway serves a Proxy with routes, all of them for host unless they say
// otherwise, until the test is over. HTTP/2 is spoken to those who begin with it.
func startGateway(t testing.TB, p *slipswitch.Proxy, routes ...slipswitch.Route) *gateway {
	t.Helper()
	return startHandler(t, p, p, routes...)
}

// startHandler is startGateway for a handler around the Proxy.
func startHandler(t testing.TB, p *slipswitch.Proxy, handler http.Handler, routes ...slipswitch.Route) *gateway {
	t.Helper()
	g := &gateway{Proxy: p, t: t, reports: make(chan slipswitch.CloseReport, 1000)}
	if p.Router == nil {
		p.Router = new(slipswitch.Router)
	}
	if p.TunnelClosed == nil {
		p.TunnelClosed = func(r slipswitch.CloseReport) { g.reports <- r }
	}
	g.put(routes...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = listener.Addr().String()
	g.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			g.running.Add(1)
			defer g.running.Add(-1)
			handler.ServeHTTP(w, r)
		}),
		Protocols: new(http.Protocols),
		ErrorLog:  log.New(&g.log, "", 0),
	}
	g.server.Protocols.SetHTTP1(true)
	g.server.Protocols.SetUnencryptedHTTP2(true)
	go g.server.Serve(listener)
	t.Cleanup(func() {
		g.server.Close()
		until(t, "no request is served", func() bool { return g.running.Load() == 0 })
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if log := g.log.String(); strings.Contains(log, "panic") {
			t.Errorf("the server has logged: %s", log)
		}
	})
	return g
}

// put puts routes, and returns the table's version.
func (g *gateway) put(routes ...slipswitch.Route) uint64 {
	g.t.Helper()
	version, err := g.Router.Update(func(tx *slipswitch.Txn) error {
		for _, r := range routes {
			if r.Host == "" {
				r.Host = host
			}
			tx.Put(r)
		}
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return version
}

// dial connects a raw client.
func (g *gateway) dial() *peer {
	g.t.Helper()
	return g.dialTo(g.addr)
}

// dialTo connects a raw client to another server of the same Proxy.
func (g *gateway) dialTo(addr string) *peer {
	g.t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		g.t.Fatal(err)
	}
	p := newPeer(g.t, conn)
	g.t.Cleanup(func() { p.Close() })
	return p
}

// do sends one raw request over a connection of its own and reads the answer.
func (g *gateway) do(raw string) answer {
	g.t.Helper()
	client := g.dial()
	defer client.Close()
	client.send(raw)
	method, _, _ := strings.Cut(raw, " ")
	return client.answer(method)
}

// get asks for a target with more header lines.
func (g *gateway) get(target string, lines ...string) answer {
	g.t.Helper()
	return g.do(request("GET", target, lines...))
}

// report waits for the next close report.
func (g *gateway) report() slipswitch.CloseReport {
	g.t.Helper()
	return receive(g.t, "a close report", g.reports)
}

// tunnels waits until so many tunnels are open, and returns them.
func (g *gateway) tunnels(n int) []*slipswitch.Tunnel {
	g.t.Helper()
	var open []*slipswitch.Tunnel
	until(g.t, fmt.Sprintf("%d open tunnels", n), func() bool {
		open = slices.Collect(g.Tunnels())
		return len(open) == n
	})
	return open
}

// receive waits for what a channel brings.
func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(wait):
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}

// until waits for a state by looking often.
func until(t testing.TB, what string, state func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !state(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// request returns a raw request without a body.
func request(method, target string, lines ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + joined(lines) + "\r\n"
}

func joined(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(line + "\r\n")
	}
	return b.String()
}

// The handshake of RFC 6455 §1.3.
const (
	key    = "dGhlIHNhbXBsZSBub25jZQ=="
	accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// handshake returns a WebSocket handshake with more header lines.
func handshake(target string, lines ...string) string {
	return request("GET", target, append([]string{"Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + key}, lines...)...)
}

// switching returns a 101 with more header lines.
func switching(lines ...string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Accept: " + accept + "\r\n" + joined(lines) + "\r\n"
}

// ok returns a response with a body.
func ok(body string, lines ...string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", len(body), joined(lines), body)
}

// An upstream is a raw server that keeps, to the byte, the requests that it
// has received.
type upstream struct {
	t        testing.TB
	listener net.Listener
	url      string
	opened   chan *peer // connections that have been answered with 101

	mu       sync.Mutex
	received []received
	conns    []*peer
}

// received is one request as an upstream saw it.
type received struct {
	*http.Request
	head string // up to the empty line, to the byte
	body string
	err  error // of reading the body
}

// line returns the request line.
func (r received) line() string {
	line, _, _ := strings.Cut(r.head, "\r\n")
	return line
}

// target returns the request's target.
func (r received) target() string {
	return strings.TrimSuffix(r.line()[strings.IndexByte(r.line(), ' ')+1:], " HTTP/1.1")
}

// startUpstream answers each request with what answer returns for it, until
// that is "".
func startUpstream(t testing.TB, answer func(received) string) *upstream {
	t.Helper()
	return startScript(t, func(u *upstream, p *peer) (opened bool) {
		for {
			r, err := p.request()
			if err != nil {
				return false
			}
			u.keep(r)
			reply := answer(r)
			if reply == "" {
				return false
			}
			if _, err := io.WriteString(p.TCPConn, reply); err != nil {
				return false
			}
			if strings.HasPrefix(reply, "HTTP/1.1 101 ") {
				io.Copy(io.Discard, p) // until the client ends it
				return false
			}
		}
	})
}

// answering is startUpstream with one answer to all.
func answering(t testing.TB, reply string) *upstream {
	t.Helper()
	return startUpstream(t, func(received) string { return reply })
}

// tunneling answers each handshake with a 101 and lets the test have the
// connection.
func tunneling(t testing.TB) *upstream {
	t.Helper()
	return startScript(t, func(u *upstream, p *peer) (opened bool) {
		r, err := p.request()
		if err != nil {
			return false
		}
		u.keep(r)
		_, err = io.WriteString(p.TCPConn, switching())
		return err == nil
	})
}

// startScript runs script for each connection, and closes it behind that
// unless it has opened a tunnel.
func startScript(t testing.TB, script func(*upstream, *peer) (opened bool)) *upstream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t: t, listener: listener, url: "http://" + listener.Addr().String(), opened: make(chan *peer, 1000)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p := newPeer(t, conn)
			u.mu.Lock()
			u.conns = append(u.conns, p)
			u.mu.Unlock()
			running.Go(func() {
				if !script(u, p) {
					p.Close()
					return
				}
				p.SetDeadline(time.Time{})
				u.opened <- p
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		u.mu.Lock()
		for _, p := range u.conns {
			p.Close()
		}
		u.mu.Unlock()
		running.Wait()
	})
	return u
}

// request reads one request, its body included.
func (p *peer) request() (r received, err error) {
	if r.head, err = p.head(); err != nil {
		return r, err
	}
	both := bufio.NewReader(io.MultiReader(strings.NewReader(r.head), onlyReader{p.r}))
	if r.Request, err = http.ReadRequest(both); err != nil {
		return r, fmt.Errorf("%w in %q", err, r.head)
	}
	if r.ContentLength == 0 {
		return r, nil
	}
	var body bytes.Buffer
	_, r.err = io.Copy(&body, r.Body)
	r.body = body.String()
	return r, nil
}

type onlyReader struct{ io.Reader }

func (u *upstream) keep(r received) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.received = append(u.received, r)
}

// all returns what has been received so far.
func (u *upstream) all() []received {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.received)
}

// connections returns how many there have been.
func (u *upstream) connections() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

// only returns the one request that was received since the last call.
func (u *upstream) only() received {
	u.t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.received) != 1 {
		u.t.Fatalf("the upstream received %d requests; want 1", len(u.received))
	}
	defer func() { u.received = nil }()
	return u.received[0]
}

// nothing wants that no request was received.
func (u *upstream) nothing() {
	u.t.Helper()
	for _, r := range u.all() {
		u.t.Errorf("the upstream received %q", r.head)
	}
}

// tunnel returns the upstream's end of the next tunnel.
func (u *upstream) tunnel() *peer {
	u.t.Helper()
	return receive(u.t, "the upstream is asked for a tunnel", u.opened)
}

// route returns a route to upstreams.
func route(path string, upstreams ...*upstream) slipswitch.Route {
	r := slipswitch.Route{Path: path}
	for _, u := range upstreams {
		r.Upstreams = append(r.Upstreams, slipswitch.Upstream{URL: u.url})
	}
	return r
}

// open opens a tunnel and returns both of its outer ends.
func (g *gateway) open(target string, u *upstream) (client, far *peer) {
	g.t.Helper()
	client = g.dial()
	client.send(handshake(target))
	if a := client.answer("GET"); a.StatusCode != http.StatusSwitchingProtocols {
		g.t.Fatalf("upgrade: %s %s", a.Status, a.body)
	}
	client.SetDeadline(time.Time{})
	far = u.tunnel()
	g.t.Cleanup(func() { far.Close() })
	return client, far
}

// dialer returns a DialContext that tells of each address and connects to none.
func dialer(tell func(address string)) func(context.Context, string, string) (net.Conn, error) {
	var mu sync.Mutex
	return func(_ context.Context, _, address string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		tell(address)
		return nil, errors.New("nobody at " + address)
	}
}
