package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

// wait is how long tests wait for what must come.
const wait = 10 * time.Second

// An upstream accepts connections and has each served by a function.
type upstream struct {
	t        testing.TB
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
	done     sync.WaitGroup
}

func newUpstream(t testing.TB, serve func(p *peer)) *upstream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t: t, listener: listener}
	u.done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conns = append(u.conns, conn)
			n := len(u.conns)
			u.mu.Unlock()
			u.done.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(10 * wait))
				serve(&peer{TCPConn: conn.(*net.TCPConn), Reader: bufio.NewReader(conn), t: t, n: n})
			})
		}
	})
	t.Cleanup(u.close)
	return u
}

func (u *upstream) close() {
	u.listener.Close()
	u.mu.Lock()
	for _, conn := range u.conns {
		conn.Close()
	}
	u.mu.Unlock()
	u.done.Wait()
}

// accepted returns how many connections there have been.
func (u *upstream) accepted() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

func (u *upstream) key() http1.Key {
	return http1.Key{Scheme: "http", Address: u.listener.Addr().String()}
}

// A peer is an upstream's end of a connection, the nth one.
type peer struct {
	*net.TCPConn
	*bufio.Reader
	t testing.TB
	n int
}

func (p *peer) Read(b []byte) (int, error)         { return p.Reader.Read(b) }
func (p *peer) WriteTo(w io.Writer) (int64, error) { return p.Reader.WriteTo(w) }

// request reads the header of a request; nil at the end.
func (p *peer) request() *http.Request {
	r, err := http.ReadRequest(p.Reader)
	if err != nil {
		return nil
	}
	return r
}

// send writes a text in which each line feed stands for CRLF.
func (p *peer) send(text string) { io.WriteString(p.TCPConn, crlf(text)) }

// reset ends the connection with a RST.
func (p *peer) reset() {
	p.TCPConn.SetLinger(0)
	p.TCPConn.Close()
}

func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// newClient returns a client that must have no connection left when the test
// is over.
func newClient(t testing.TB) *http1.Client {
	c := &http1.Client{Dial: dial}
	t.Cleanup(func() {
		c.Close()
		until(t, "all connections are gone", func() bool { return c.Stats() == http1.Stats{} }) // the last may still be sending
	})
	return c
}

func dial(ctx context.Context, key http1.Key) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", key.Address)
}

func get(path string) *http1.Request {
	return &http1.Request{Method: "GET", Path: path, Host: "example.com"}
}

// body is not in memory as far as the client can tell.
func post(text string) *http1.Request {
	return &http1.Request{Method: "POST", Path: "/", Host: "example.com", Body: streamed(text), ContentLength: int64(len(text))}
}

func streamed(text string) io.Reader { return struct{ io.Reader }{strings.NewReader(text)} }

// ask returns a response, whole.
func ask(t testing.TB, c *http1.Client, u *upstream, q *http1.Request) (*http1.Response, string) {
	t.Helper()
	r, err := c.RoundTrip(t.Context(), u.key(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return r, string(b)
}

// until waits for a state.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: ", what)
		}
	}
}

// written is what a client would send.
func written(t testing.TB, q *http1.Request) string {
	t.Helper()
	var sent bytes.Buffer
	u := newUpstream(t, func(p *peer) {
		r := p.request()
		if r == nil {
			return
		}
		p.send("HTTP/1.1 204 No Content\n\n")
	})
	c := newClient(t)
	c.Dial = func(ctx context.Context, key http1.Key) (net.Conn, error) {
		conn, err := dial(ctx, key)
		return tee{conn, &sent}, err
	}
	r, err := c.RoundTrip(t.Context(), u.key(), q)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	return sent.String()
}

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

func hex(n int) string { return strconv.FormatInt(int64(n), 16) }

type tee struct {
	net.Conn
	to *bytes.Buffer
}

func (c tee) Write(b []byte) (int, error) {
	c.to.Write(b)
	return c.Conn.Write(b)
}

// nowhere is no io.ReaderFrom, as io.Discard is.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
