package http1_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

const ok = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"

// numbered answers with the number of the connection.
func numbered(p *peer) {
	for {
		r := p.request()
		if r == nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		p.send("HTTP/1.1 200 OK\nContent-Length: " + itoa(len(itoa(p.n))) + "\n\n" + itoa(p.n))
	}
}

// hold opens n connections that are in use, and returns their responses.
func hold(t *testing.T, c *http1.Client, key http1.Key, n int) (held []*http1.Response) {
	for range n {
		r, err := c.RoundTrip(t.Context(), key, get("/"))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, r)
	}
	return held
}

// read returns which connections answer.
func read(t *testing.T, held []*http1.Response) (numbers string) {
	for _, r := range held {
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		numbers += string(b)
	}
	return numbers
}

func TestLastUsedFirst(t *testing.T) {
	u := newUpstream(t, numbered)
	c := newClient(t)
	if got := read(t, hold(t, c, u.key(), 3)); got != "123" {
		t.Fatalf("got %s; want 123", got)
	}
	if got := read(t, hold(t, c, u.key(), 1)); got != "3" {
		t.Errorf("got %s; want 3", got)
	}
	held := hold(t, c, u.key(), 2) // 3, 2
	read(t, held[:1])
	read(t, held[1:])
	if got := read(t, hold(t, c, u.key(), 3)); got != "231" {
		t.Errorf("got %s; want 231", got)
	}
}

func TestBounds(t *testing.T) {
	one, two := newUpstream(t, numbered), newUpstream(t, numbered)
	c := newClient(t)
	c.MaxIdle, c.MaxIdlePerKey = 3, 2
	read(t, hold(t, c, one.key(), 4))
	if got := c.Stats(); got != (http1.Stats{Open: 2, Idle: 2}) {
		t.Errorf("got %+v; want 2", got)
	}
	read(t, hold(t, c, two.key(), 2))
	if got := c.Stats(); got != (http1.Stats{Open: 3, Idle: 3}) {
		t.Errorf("got %+v; want 3", got)
	}
	if got := read(t, hold(t, c, one.key(), 2)); got != "45" {
		t.Errorf("got %s; want 4, the one that was used last, and 5, a new one", got)
	}
}

// Connections are shared by what has the same key, and by nothing else.
func TestKeys(t *testing.T) {
	u := newUpstream(t, numbered)
	c := newClient(t)
	key := u.key()
	others := []http1.Key{key, key, key, key}
	others[0].ID = "x"
	others[1].Profile = "x"
	others[2].Guarded = true
	others[3].Scheme = "x"
	read(t, hold(t, c, key, 1))
	for i, other := range others {
		if got := read(t, hold(t, c, other, 1)); got != itoa(i+2) {
			t.Errorf("%+v: got %s; want a connection of its own", other, got)
		}
	}
	if got := http1.Keys(c); got != 5 {
		t.Errorf("got %d keys; want 5", got)
	}
	c.Drop(func(k http1.Key) bool { return k.ID == "x" || k.Guarded })
	if got := c.Stats().Idle; got != 3 {
		t.Errorf("got %d idle ones; want 3", got)
	}
	c.CloseIdle()
	if got := http1.Keys(c); got != 0 {
		t.Errorf("got %d keys; want none", got)
	}
}

// A dropped connection that is in use finishes its request, and no other.
func TestDrop(t *testing.T) {
	u := newUpstream(t, numbered)
	c := newClient(t)
	held := hold(t, c, u.key(), 2)
	read(t, held[:1])
	c.Drop(func(k http1.Key) bool { return k == u.key() })
	if got := read(t, hold(t, c, u.key(), 1)); got != "3" {
		t.Errorf("got %s; want 3", got)
	}
	if got := read(t, held[1:]); got != "2" {
		t.Errorf("got %s; want 2", got)
	}
	if got := c.Stats(); got.Open != 1 || got.Idle != 1 {
		t.Errorf("got %+v; want the third", got)
	}
	c.Close()
	if got := read(t, hold(t, c, u.key(), 1)); got != "4" {
		t.Errorf("after Close: got %s; want 4", got)
	}
	if got := c.Stats(); got.Open != 0 || got.Idle != 0 {
		t.Errorf("after Close: got %+v; want none", got)
	}
}

func TestExpiry(t *testing.T) {
	for name, c := range map[string]*http1.Client{
		"idle timeout":  {IdleTimeout: 50 * time.Millisecond},
		"sooner by far": {IdleTimeout: time.Nanosecond},
	} {
		u := newUpstream(t, numbered)
		c.Dial = dial
		read(t, hold(t, c, u.key(), 3))
		until(t, name, func() bool { return c.Stats() == http1.Stats{} && http1.Keys(c) == 0 })
	}
	u := newUpstream(t, func(p *peer) {
		for p.request() != nil {
			p.send("HTTP/1.1 200 OK\nContent-Length: 2\nKeep-Alive: max=100, Timeout=1\n\nok")
		}
	})
	c := newClient(t)
	ask(t, c, u, get("/"))
	if got := c.Stats().Idle; got != 0 {
		t.Errorf("got %d idle ones; want none: the upstream closes it within a second", got)
	}
}

// A connection that the upstream has closed, or written to, is not used again,
// whatever the request. And it is not kept for long.
func TestDeadConnections(t *testing.T) {
	for name, end := range map[string]func(*peer){
		"closed":  func(p *peer) { p.TCPConn.Close() },
		"half":    func(p *peer) { p.CloseWrite() },
		"reset":   (*peer).reset,
		"unasked": func(p *peer) { p.send(ok) },
		"408":     func(p *peer) { p.send("HTTP/1.1 408 Request Timeout\nConnection: close\n\n"); p.CloseWrite() },
	} {
		for _, swept := range []bool{false, true} {
			t.Run(fmt.Sprint(name, swept), func(t *testing.T) {
				ended := make(chan struct{})
				u := newUpstream(t, func(p *peer) {
					if p.n > 1 {
						numbered(p)
						return
					}
					p.request()
					p.send(ok)
					<-ended
					end(p)
					ended <- struct{}{}
					io.Copy(io.Discard, p.TCPConn)
				})
				c := newClient(t)
				ask(t, c, u, get("/"))
				ended <- struct{}{}
				<-ended
				if swept {
					until(t, "it goes", func() bool { http1.Sweep(c); return c.Stats().Idle == 0 })
				} else {
					until(t, "it has come", func() bool { return !http1.Quiet(c) })
				}
				if _, body := ask(t, c, u, post("not to be repeated")); body != "2" {
					t.Errorf("got %q; want 2", body)
				}
			})
		}
	}
}

// A used connection that fails before a response is replaced, if the request
// may be repeated.
func TestRepeat(t *testing.T) {
	for _, test := range []struct {
		name   string
		set    func(*http1.Request)
		answer string
		again  bool
	}{
		{"GET", func(q *http1.Request) { q.Method = "GET" }, "", true},
		{"HEAD", func(q *http1.Request) { q.Method = "HEAD" }, "", true},
		{"OPTIONS", func(q *http1.Request) { q.Method = "OPTIONS" }, "", true},
		{"PUT", func(q *http1.Request) { q.Method = "PUT" }, "", true},
		{"DELETE", func(q *http1.Request) { q.Method = "DELETE" }, "", true},
		{"PUT in memory", func(q *http1.Request) {
			q.Method, q.Body, q.ContentLength = "PUT", strings.NewReader("hello"), 5
		}, "", true},
		{"PUT", func(q *http1.Request) { q.Method, q.Body, q.ContentLength = "PUT", streamed("hello"), 5 }, "", false},
		{"POST", func(q *http1.Request) { q.Method = "POST" }, "", false},
		{"PATCH", func(q *http1.Request) { q.Method = "PATCH" }, "", false},
		{"get", func(q *http1.Request) { q.Method = "get" }, "", false},
		{"POST in memory", func(q *http1.Request) {
			q.Method, q.Body, q.ContentLength = "POST", strings.NewReader("hello"), 5
		}, "", false},
		{"POST before its body", func(q *http1.Request) {
			q.Method, q.Body, q.ContentLength, q.ContinueTimeout = "POST", streamed("hello"), 5, wait
			q.Header = http.Header{"Expect": {"100-continue"}}
		}, "", true},
		{"GET after a byte", func(q *http1.Request) { q.Method = "GET" }, "H", false},
		{"GET after an interim", func(q *http1.Request) { q.Method = "GET" }, "HTTP/1.1 103 Hi\n\n", false},
	} {
		for _, end := range []func(*peer){(*peer).reset, func(p *peer) { p.TCPConn.Close() }} {
			var got atomic.Int32
			u := newUpstream(t, func(p *peer) {
				if p.n > 1 {
					if p.request() != nil {
						got.Add(1)
						p.send("HTTP/1.1 200 OK\nContent-Length: 0\n\n")
						p.request()
					}
					return
				}
				p.request()
				p.send(ok)
				p.request()
				p.send(test.answer)
				end(p)
			})
			c := newClient(t)
			ask(t, c, u, get("/"))
			q := &http1.Request{Path: "/", Host: "h"}
			test.set(q)
			r, err := c.RoundTrip(t.Context(), u.key(), q)
			if err == nil {
				r.Close()
			}
			if again := err == nil; again != test.again || int(got.Load()) != btoi(test.again) {
				t.Errorf("%s: got %v, sent %d times more; want it repeated: %v", test.name, err, got.Load(), test.again)
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// On a new connection nothing is repeated.
func TestNoRepeatOnNewConnections(t *testing.T) {
	u := newUpstream(t, func(p *peer) { p.request() })
	c := newClient(t)
	_, err := c.RoundTrip(t.Context(), u.key(), get("/"))
	if !errors.Is(err, io.ErrUnexpectedEOF) || u.accepted() != 1 {
		t.Errorf("got %v after %d connections; want an unexpected EOF after 1", err, u.accepted())
	}
}

// A connection that is to end is closed after the upstream has closed it, so
// that no port of ours stays taken, and hung up on if it does not end.
func TestLeaving(t *testing.T) {
	const refusal = "HTTP/1.1 401 Unauthorized\nContent-Length: 2\n\nno"
	for _, ends := range []bool{true, false} {
		end := make(chan error, 1)
		release := make(chan struct{})
		u := newUpstream(t, func(p *peer) {
			p.request()
			p.send(refusal)
			<-release
			if ends {
				p.CloseWrite()
			}
			_, err := io.Copy(io.Discard, p.TCPConn)
			end <- err
		})
		c := newClient(t)
		q := get("/")
		q.Upgrade = "websocket"
		if r, body := ask(t, c, u, q); r.Status != 401 || body != "no" {
			t.Errorf("got %d with %q; want 401 with no", r.Status, body)
		}
		if got := c.Stats(); got != (http1.Stats{Lingering: 1}) {
			t.Errorf("got %+v; want 1 that lingers", got)
		}
		close(release)
		if err := <-end; err != nil {
			t.Errorf("the upstream got %v; want an ordinary end", err)
		}
		until(t, "it is gone", func() bool { return c.Stats().Lingering == 0 })
	}
}

// An upstream whose client leaves sees an ordinary end, and no port of ours is
// taken. One that was asked for an upgrade sees it only after a while: it may have
// nobody any more who listens for errors, and still be about to answer.
func TestAbandoned(t *testing.T) {
	for _, upgrade := range []string{"", "websocket"} {
		end := make(chan error, 1)
		asked := make(chan struct{})
		u := newUpstream(t, func(p *peer) {
			p.request()
			close(asked)
			_, err := io.Copy(io.Discard, p.TCPConn)
			end <- err
		})
		c := newClient(t)
		q := get("/")
		q.Upgrade = upgrade
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-asked; cancel() }()
		if _, err := c.RoundTrip(ctx, u.key(), q); err != context.Canceled {
			t.Errorf("got %v; want canceled", err)
		}
		if got := c.Stats().Lingering; (got == 1) != (upgrade != "") {
			t.Errorf("upgrade %q: %d linger", upgrade, got)
		}
		c.CloseIdle()
		if err := <-end; err != nil {
			t.Errorf("upgrade %q: the upstream got %v; want an ordinary end", upgrade, err)
		}
	}
}

func TestIdleCost(t *testing.T) {
	const n = 1000
	u := newUpstream(t, numbered)
	c := newClient(t)
	c.MaxIdlePerKey = n
	read(t, hold(t, c, u.key(), 1))
	measure := func() (goroutines int, bytes uint64) {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return runtime.NumGoroutine(), stats.HeapAlloc + stats.StackInuse
	}
	var conns []net.Conn
	c.Dial = func(ctx context.Context, key http1.Key) (net.Conn, error) { return conns[len(conns)-1], nil }
	for range n { // the upstream's side, of another process in life
		conn, err := dial(t.Context(), u.key())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	until(t, "all are accepted", func() bool { return u.accepted() == n+1 })
	rest := conns
	c.Dial = func(ctx context.Context, key http1.Key) (conn net.Conn, err error) {
		conn, rest = rest[0], rest[1:]
		return conn, nil
	}
	c.CloseIdle()
	goroutines, before := measure()
	held := hold(t, c, u.key(), n)
	read(t, held)
	held = nil
	if got := c.Stats().Idle; got != n {
		t.Fatalf("got %d idle ones; want %d", got, n)
	}
	after, bytes := measure()
	t.Logf("%d idle connections: %d goroutines, %d bytes each, without the socket's own", n, after-goroutines, (int64(bytes)-int64(before))/n)
	if after > goroutines {
		t.Errorf("got %d goroutines more; want none", after-goroutines)
	}
	if bytes > before+n*4<<10 {
		t.Errorf("got %d bytes each; want at most 4 KiB", (bytes-before)/n)
	}
	runtime.KeepAlive(conns)
}

// Nothing is left of addresses that were asked once.
func TestKeysAreForgotten(t *testing.T) {
	u := newUpstream(t, func(p *peer) {
		p.request()
		p.send("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 0\n\n")
	})
	c := newClient(t)
	refuses := errors.New("refused")
	c.Dial = func(ctx context.Context, key http1.Key) (net.Conn, error) {
		if key.ID[len(key.ID)-1] == '0' {
			return dial(ctx, key)
		}
		return nil, refuses
	}
	for i := range 100 {
		key := u.key()
		key.ID = itoa(i)
		r, err := c.RoundTrip(t.Context(), key, get("/"))
		if err == nil {
			r.Close()
		} else if err != refuses {
			t.Fatal(err)
		}
	}
	if got := http1.Keys(c); got != 0 {
		t.Errorf("got %d keys; want none", got)
	}
}

// TLS reads ahead: what it has read is looked at, too.
func TestTLS(t *testing.T) {
	extra := make(chan string, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/extra":
			conn, buffered, _ := http.NewResponseController(w).Hijack()
			io.WriteString(conn, crlf(ok)+<-extra)
			bufio.NewReader(buffered).Peek(1)
			conn.Close()
		default:
			b, _ := io.ReadAll(r.Body)
			w.Write(append([]byte(r.RemoteAddr), b...))
		}
	}))
	defer server.Close()
	c := newClient(t)
	c.Dial = func(ctx context.Context, key http1.Key) (net.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
		return d.DialContext(ctx, "tcp", key.Address)
	}
	key := http1.Key{Scheme: "https", Address: server.Listener.Addr().String()}
	first, second := read(t, hold(t, c, key, 1)), read(t, hold(t, c, key, 1))
	if first != second {
		t.Errorf("got %s, then %s; want the same connection", first, second)
	}
	long := strings.Repeat("x", 300_000)
	r, err := c.RoundTrip(t.Context(), key, post(long))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if _, err := r.WriteTo(&b); err != nil || b.String() != first+long {
		t.Errorf("got %d bytes, %v; want %d", b.Len(), err, len(first+long))
	}
	r.Close()
	until(t, "idle", func() bool { return c.Stats().Idle == 1 })
	extra <- strings.Repeat("HTTP/1.1 200 OK\r\n", 1000)
	if r, err = c.RoundTrip(t.Context(), key, get("/extra")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, []*http1.Response{r}); got != "ok" {
		t.Errorf("got %q; want ok", got)
	}
	if got := c.Stats().Idle; got != 0 {
		t.Errorf("got %d idle ones; want none: there is more to read", got)
	}
}

// What is no socket, and says nothing of one, is looked at by a read.
func TestNoSocket(t *testing.T) {
	c := newClient(t)
	opened := 0
	c.Dial = func(ctx context.Context, key http1.Key) (net.Conn, error) {
		opened++
		return &answering{}, nil
	}
	for _, want := range []int{1, 1, 1, 2} {
		if got := read(t, hold(t, c, http1.Key{}, 1)); got != "ok" || opened != want {
			t.Errorf("got %q over connection %d; want ok over %d", got, opened, want)
		}
	}
}

// An answering connection has an answer for each request, and two for the third,
// and then nothing to read.
type answering struct {
	scripted
	requests int
	late     []byte
}

func (a *answering) Write(b []byte) (int, error) {
	a.parts = append(a.parts, []byte(crlf(ok)))
	if a.requests++; a.requests == 3 {
		a.late = []byte(crlf(ok))
	}
	return len(b), nil
}

func (a *answering) Read(b []byte) (int, error) {
	switch {
	case len(a.parts) > 0:
		return a.scripted.Read(b)
	case a.late != nil:
		return copy(b, a.late), nil
	}
	return 0, os.ErrDeadlineExceeded
}
