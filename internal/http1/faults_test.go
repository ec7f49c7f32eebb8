package http1_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

// However much of a response has come before the connection ends, what is read
// is a part of it, and an error tells that it is not whole.
func TestEndAtEveryByteOfTheResponse(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\nContent-Length: 11\n\nhello world",
		"HTTP/1.1 103 Hi\nA: b\n\nHTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n6;a=b\nhello \n5\nworld\n0\nX: y\n\n",
	} {
		answer = crlf(answer)
		for _, end := range []func(*peer){(*peer).reset, func(p *peer) { p.CloseWrite(); io.Copy(io.Discard, p.TCPConn) }} {
			u := newUpstream(t, func(p *peer) {
				p.request()
				io.WriteString(p.TCPConn, answer[:p.n-1])
				end(p)
			})
			c := newClient(t)
			for cut := range answer {
				var body []byte
				r, err := c.RoundTrip(t.Context(), u.key(), get("/"))
				if err == nil {
					body, err = io.ReadAll(r)
					r.Close()
				}
				if err == nil || !strings.HasPrefix("hello world", string(body)) {
					t.Errorf("after %q: got %q, %v; want a part and an error", answer[:cut], body, err)
				}
			}
			if stats := c.Stats(); stats != (http1.Stats{}) {
				t.Errorf("got %+v; want no connection", stats)
			}
		}
	}
}

// The same for what the upstream has read of a request.
func TestEndAtEveryByteOfTheRequest(t *testing.T) {
	const text = "hello world"
	const whole = "POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"
	for _, end := range []func(*peer){(*peer).reset, func(p *peer) { p.TCPConn.Close() }} {
		u := newUpstream(t, func(p *peer) {
			io.CopyN(io.Discard, p.TCPConn, int64(p.n-1))
			end(p)
		})
		c := newClient(t)
		for taken := range len(whole) + 1 {
			q := post(text)
			q.ContentLength = -1
			r, err := c.RoundTrip(t.Context(), u.key(), q)
			if err == nil {
				r.Close()
				t.Errorf("after %d bytes: got a response", taken)
			}
		}
		if got := u.accepted(); got != len(whole)+1 {
			t.Errorf("got %d connections; want %d: nothing is sent again", got, len(whole)+1)
		}
	}
}

// An upstream may stop at any byte, and no timeout lets it get away with that.
func TestStallAtEveryByteOfTheResponse(t *testing.T) {
	answer := crlf("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n")
	u := newUpstream(t, func(p *peer) {
		for {
			r := p.request()
			if r == nil {
				return
			}
			io.WriteString(p.TCPConn, answer[:len(r.URL.Path)-1])
		}
	})
	c := newClient(t)
	for cut := range answer {
		q := get("/" + strings.Repeat("x", cut))
		q.HeaderTimeout, q.StreamTimeout = 5*time.Millisecond, 5*time.Millisecond
		r, err := c.RoundTrip(t.Context(), u.key(), q)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if err != http1.ErrHeaderTimeout && err != http1.ErrStreamTimeout {
			t.Errorf("after %q: got %v; want a timeout", answer[:cut], err)
		}
	}
}

// Every pair of framing fields over a pooled connection, and behind it a second
// user's request: what he gets is his.
func TestSmuggling(t *testing.T) {
	fields := []string{"", "Content-Length: 0", "Content-Length: 5", "Content-Length: 50", "content-length: 5", "Content-Length: 5,5", "Content-Length:5 ",
		"Content-Length : 5", "Content-Length: 05", "Content-Length: 5\r", "Content-Length\t: 5", " Content-Length: 5", "Content_Length: 5", "X: y\n Content-Length: 5",
		"Transfer-Encoding: chunked", "Transfer-Encoding:chunked", "transfer-encoding: CHUNKED", "Transfer-Encoding: \x0bchunked", "Transfer-Encoding : chunked",
		"Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity", "Transfer-Encoding: chunked\r", "X: y\n\tTransfer-Encoding: chunked", "TE: chunked",
		"Transfer-Encoding: x\nTransfer-Encoding: chunked", "Connection: Transfer-Encoding", "Connection: close"}
	poison := "HTTP/1.1 200 OK\nContent-Length: 6\n\npoison"
	u := newUpstream(t, func(p *peer) {
		for {
			r := p.request()
			if r == nil {
				return
			}
			if r.URL.Path == "/second" {
				p.send("HTTP/1.1 200 OK\nContent-Length: 6\n\nsecond")
				continue
			}
			p.send("HTTP/1." + r.Header.Get("Minor") + " 200 OK\n")
			for _, i := range []string{r.Header.Get("First"), r.Header.Get("Second")} {
				if i != "" {
					p.send(fields[atoi(i)] + "\n")
				}
			}
			p.send("\n5\nhello\n0\n\n" + poison)
		}
	})
	c := newClient(t)
	answered := 0
	defer func() {
		if answered < 100 {
			t.Errorf("only %d first answers were taken", answered)
		}
	}()
	for first := range fields {
		for second := range fields {
			for _, how := range []struct{ method, minor string }{{"GET", "1"}, {"HEAD", "1"}, {"POST", "1"}, {"GET", "0"}} {
				q := get("/first")
				q.Method = how.method
				q.Header = map[string][]string{"Minor": {how.minor}}
				if first > 0 {
					q.Header["First"] = []string{itoa(first)}
				}
				if second > 0 {
					q.Header["Second"] = []string{itoa(second)}
				}
				q.StreamTimeout, q.HeaderTimeout = 2*time.Millisecond, wait
				if r, err := c.RoundTrip(t.Context(), u.key(), q); err == nil {
					answered++
					io.Copy(io.Discard, r)
					r.Close()
				}
				if _, body := ask(t, c, u, get("/second")); body != "second" {
					t.Fatalf("%v with %q and %q: the second user got %q", how, fields[first], fields[second], body)
				}
			}
		}
	}
}

// A client that goes away at any point leaves nothing behind that another gets.
func TestHalfRead(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	u := newUpstream(t, func(p *peer) {
		for {
			r := p.request()
			if r == nil {
				return
			}
			p.send("HTTP/1.1 200 OK\nContent-Length: " + itoa(len(long)+len(r.URL.Path)) + "\n\n" + long + r.URL.Path)
		}
	})
	c := newClient(t)
	for n := range 50 {
		r, err := c.RoundTrip(t.Context(), u.key(), get("/half"))
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, r, int64(n*2000))
		if n%2 == 0 {
			r.Abort(errors.New("gone"))
		}
		r.Close()
		if _, body := ask(t, c, u, get("/whole")); body != long+"/whole" {
			t.Fatalf("got %d bytes that end with %q", len(body), body[len(body)-10:])
		}
	}
}
