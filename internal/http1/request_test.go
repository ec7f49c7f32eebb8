package http1_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

func TestWritten(t *testing.T) {
	for _, test := range []struct {
		name string
		q    http1.Request
		want string
	}{
		{"plain", http1.Request{Method: "GET", Path: "/a%2Fb", RawQuery: "c=d", Host: "h:1"}, "GET /a%2Fb?c=d HTTP/1.1\nHost: h:1\n\n"},
		{"an empty query", http1.Request{Method: "GET", Path: "/", ForceQuery: true}, "GET /? HTTP/1.1\nHost: \n\n"},
		{"no body", http1.Request{Method: "DELETE", Path: "/"}, "DELETE / HTTP/1.1\nHost: \n\n"},
		{"an empty body", http1.Request{Method: "POST", Path: "/"}, "POST / HTTP/1.1\nHost: \nContent-Length: 0\n\n"},
		{"in memory", http1.Request{Method: "POST", Path: "/", Body: strings.NewReader("hello"), ContentLength: 4}, "POST / HTTP/1.1\nHost: \nContent-Length: 4\n\nhell"},
		{"upgrade", http1.Request{Method: "GET", Path: "/", Upgrade: "websocket", Header: http.Header{"Sec-Websocket-Key": {"x"}, "Connection": {"close"}}},
			"GET / HTTP/1.1\nHost: \nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: x\n\n"},
		{"framing fields", http1.Request{Method: "GET", Path: "/", Header: http.Header{"host": {"x"}, "CONTENT-LENGTH": {"5"}, "transfer-Encoding": {"chunked"},
			"Trailer": {"x"}, "X-Empty": {" "}}}, "GET / HTTP/1.1\nHost: \nX-Empty: \n\n"},
		{"values", http1.Request{Method: "GET", Path: "/", Header: http.Header{"X": {"\ta\tb ", "c\xe9"}}}, "GET / HTTP/1.1\nHost: \nX: a\tb\nX: c\xe9\n\n"},
	} {
		if got := written(t, &test.q); got != crlf(test.want) {
			t.Errorf("%s: got %q; want %q", test.name, got, crlf(test.want))
		}
	}
}

func TestBadRequests(t *testing.T) {
	for name, q := range map[string]http1.Request{
		"method":             {Method: "GE T", Path: "/"},
		"no method":          {Path: "/"},
		"CONNECT":            {Method: "CONNECT", Path: "/"},
		"no path":            {Method: "GET"},
		"path":               {Method: "GET", Path: "/ HTTP/1.1\r\nX: y"},
		"query":              {Method: "GET", Path: "/", RawQuery: "a b"},
		"host":               {Method: "GET", Path: "/", Host: "a\nb"},
		"name":               {Method: "GET", Path: "/", Header: http.Header{"X Y": {"z"}}},
		"no name":            {Method: "GET", Path: "/", Header: http.Header{"": {"z"}}},
		"value":              {Method: "GET", Path: "/", Header: http.Header{"X": {"a\r\nY: z"}}},
		"NUL":                {Method: "GET", Path: "/", Header: http.Header{"X": {"\x00"}}},
		"length":             {Method: "POST", Path: "/", ContentLength: 5},
		"negative":           {Method: "POST", Path: "/", ContentLength: -2, Body: strings.NewReader("x")},
		"upgrade with body":  {Method: "POST", Path: "/", Upgrade: "x", ContentLength: 1, Body: strings.NewReader("x")},
		"upgrade in 2 lines": {Method: "GET", Path: "/", Upgrade: "x\r\ny: z"},
	} {
		c := &http1.Client{} // which would panic if it dialed
		_, err := c.RoundTrip(t.Context(), http1.Key{}, &q)
		if _, ok := errors.AsType[*http1.RequestError](err); !ok {
			t.Errorf("%s: got %v; want a RequestError", name, err)
		}
	}
}

// Bodies of all sizes arrive as they are, in both directions at once.
func TestEcho(t *testing.T) {
	u := newUpstream(t, func(p *peer) {
		for {
			r := p.request()
			if r == nil {
				return
			}
			if r.ContentLength >= 0 {
				p.send("HTTP/1.1 200 OK\nContent-Length: " + r.Header.Get("X-Length") + "\n\n")
				io.Copy(p.TCPConn, r.Body)
				continue
			}
			p.send("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X-Sum\n\n")
			w := &chunks{to: p.TCPConn}
			io.Copy(w, r.Body)
			w.end("X-Sum: " + r.Trailer.Get("X-Sum") + "\r\n")
		}
	})
	for _, size := range []int{1, 100, 4096, 5000, 32 << 10, 100_000, 3 << 20} {
		for _, isChunked := range []bool{false, true} {
			for _, read := range []string{"ReadAll", "bytes", "WriteTo"} {
				if read == "bytes" && size > 5000 {
					continue
				}
				c := newClient(t)
				text := make([]byte, size)
				rand.Read(text)
				for range 3 {
					q := post("")
					q.Body, q.ContentLength = io.Reader(struct{ io.Reader }{bytes.NewReader(text)}), int64(size)
					q.Header = http.Header{"X-Length": {itoa(size)}}
					if isChunked {
						q.ContentLength = -1
						q.Trailer = http.Header{"X-Sum": {"7"}}
					}
					r, err := c.RoundTrip(t.Context(), u.key(), q)
					if err != nil {
						t.Fatal(err)
					}
					var got bytes.Buffer
					switch read {
					case "ReadAll":
						_, err = got.ReadFrom(struct{ io.Reader }{r})
					case "bytes":
						_, err = got.ReadFrom(iotest.OneByteReader(r))
					case "WriteTo":
						_, err = r.WriteTo(&got)
					}
					r.Close()
					if err != nil || !bytes.Equal(got.Bytes(), text) {
						t.Fatalf("%d bytes, chunked %v, %s: got %d others, %v", size, isChunked, read, got.Len(), err)
					}
					if isChunked && r.Trailer.Get("X-Sum") != "7" {
						t.Errorf("got the trailer %v; want X-Sum: 7", r.Trailer)
					}
					until(t, "the connection is idle", func() bool { return c.Stats().Idle == 1 })
				}
			}
		}
	}
}

// A chunks writes each part as a chunk.
type chunks struct{ to io.Writer }

func (c *chunks) Write(b []byte) (int, error) {
	_, err := io.WriteString(c.to, hex(len(b))+"\r\n"+string(b)+"\r\n")
	return len(b), err
}

func (c *chunks) end(trailer string) { io.WriteString(c.to, "0\r\n"+trailer+"\r\n") }

// A large response goes from socket to socket.
func TestSpliced(t *testing.T) {
	const size = 8 << 20
	text := make([]byte, size)
	rand.Read(text)
	for _, head := range []string{"HTTP/1.1 200 OK\nContent-Length: 8388608\n\n", "HTTP/1.1 200 OK\n\n"} {
		u := newUpstream(t, func(p *peer) {
			p.request()
			p.send(head)
			p.TCPConn.Write(text)
		})
		sums := make(chan [32]byte, 1)
		sink := newUpstream(t, func(p *peer) {
			sum := sha256.New()
			io.Copy(sum, p)
			sums <- [32]byte(sum.Sum(nil))
		})
		to, err := dial(t.Context(), sink.key())
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t)
		q := get("/")
		q.StreamTimeout = wait
		ctx, cancel := context.WithCancel(t.Context())
		r, err := c.RoundTrip(ctx, u.key(), q)
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.WriteTo(to)
		r.Close()
		to.Close()
		cancel()
		if n != size || err != nil || <-sums != sha256.Sum256(text) {
			t.Errorf("got %d bytes, %v; want %d, the same", n, err, size)
		}
	}
}

// What has come goes on when the upstream pauses, and not before.
func TestFlushesWhenTheUpstreamPauses(t *testing.T) {
	for _, head := range []string{"HTTP/1.1 200 OK\nContent-Length: 10\n\nhello", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nhe\n3\nllo\n"} {
		flushed := make(chan string, 10)
		u := newUpstream(t, func(p *peer) {
			p.request()
			p.send(head)
			if got := <-flushed; got != "hello" {
				t.Errorf("%q: flushed %q; want hello", head, got)
			}
			if strings.Contains(head, "chunked") {
				p.send("5\nworld\n0\n\n")
			} else {
				p.send("world")
			}
		})
		c := newClient(t)
		r, err := c.RoundTrip(t.Context(), u.key(), get("/"))
		if err != nil {
			t.Fatal(err)
		}
		w := &flusher{flushed: flushed}
		if _, err := r.WriteTo(w); err != nil {
			t.Error(err)
		}
		r.Close()
		if got := w.String(); got != "world" || len(flushed) > 0 {
			t.Errorf("%q: at the end got %q unflushed; want world", head, got)
		}
	}
}

type flusher struct {
	bytes.Buffer
	flushed chan string
}

func (f *flusher) ReadFrom(io.Reader) (int64, error) { panic("of few bytes") }

func (f *flusher) FlushError() error {
	f.flushed <- f.String()
	f.Reset()
	return nil
}

func TestContinue(t *testing.T) {
	t.Run("asked for", func(t *testing.T) {
		var touched atomic.Bool
		u := newUpstream(t, func(p *peer) {
			r := p.request()
			if touched.Load() {
				t.Error("the body is read before it is asked for")
			}
			p.send("HTTP/1.1 103 Hi\n\nHTTP/1.1 100 Continue\n\n")
			b, _ := io.ReadAll(r.Body)
			p.send("HTTP/1.1 200 OK\nContent-Length: " + itoa(len(b)) + "\n\n" + string(b))
			p.request()
		})
		c := newClient(t)
		q := post("hello")
		q.Body = readerFunc(func(b []byte) (int, error) {
			touched.Store(true)
			return copy(b, "hello"), io.EOF
		})
		q.Header = http.Header{"Expect": {"100-continue"}}
		q.ContinueTimeout = wait
		if _, body := ask(t, c, u, q); body != "hello" {
			t.Errorf("got %q; want hello", body)
		}
	})
	t.Run("refused", func(t *testing.T) {
		u := newUpstream(t, func(p *peer) {
			p.request()
			p.send("HTTP/1.1 417 Expectation Failed\nContent-Length: 2\n\nno")
			p.request()
		})
		c := newClient(t)
		q := post("hello")
		q.Body = iotest.ErrReader(errors.New("it is read"))
		q.Header = http.Header{"Expect": {"100-Continue"}}
		if r, body := ask(t, c, u, q); r.Status != 417 || body != "no" {
			t.Errorf("got %d with %q; want 417 with no", r.Status, body)
		}
		if got := c.Stats().Idle; got != 0 {
			t.Errorf("got %d idle connections; want none, since a body may still be due", got)
		}
	})
	t.Run("not heard of", func(t *testing.T) {
		u := newUpstream(t, func(p *peer) {
			r := p.request()
			b, _ := io.ReadAll(r.Body)
			p.send("HTTP/1.1 200 OK\nContent-Length: " + itoa(len(b)) + "\n\n" + string(b))
			p.request()
		})
		c := newClient(t)
		q := post("hello")
		q.Header = http.Header{"Expect": {"100-continue"}}
		q.ContinueTimeout = 20 * time.Millisecond
		q.HeaderTimeout = wait
		if _, body := ask(t, c, u, q); body != "hello" {
			t.Errorf("got %q; want hello", body)
		}
		until(t, "the connection is idle", func() bool { return c.Stats().Idle == 1 })
	})
}

// An answer may come while the body is still being sent.
func TestEarlyAnswer(t *testing.T) {
	for _, rest := range []string{"sent", "left"} {
		t.Run(rest, func(t *testing.T) {
			u := newUpstream(t, func(p *peer) {
				r := p.request()
				p.send("HTTP/1.1 413 Content Too Large\nContent-Length: 5\n\nhello")
				io.Copy(io.Discard, r.Body)
				p.request()
			})
			c := newClient(t)
			body, more := io.Pipe()
			q := post("")
			q.Body, q.ContentLength = body, 10
			go more.Write([]byte("01234"))
			r, text := ask2(t, c, u, q)
			if r.Status != 413 || text != "hello" {
				t.Errorf("got %d with %q; want 413 with hello", r.Status, text)
			}
			if r.Sent() || c.Stats() != (http1.Stats{Open: 1}) {
				t.Errorf("sent %v, got %+v; want an open connection", r.Sent(), c.Stats())
			}
			if rest == "sent" {
				more.Write([]byte("56789"))
				until(t, "the connection is idle", func() bool { return c.Stats().Idle == 1 })
			}
			r.Close()
			if rest == "left" {
				if got := c.Stats().Open; got != 0 {
					t.Errorf("got %d connections; want none", got)
				}
			}
			more.Close()
		})
	}
}

// ask2 is ask without Close.
func ask2(t *testing.T, c *http1.Client, u *upstream, q *http1.Request) (*http1.Response, string) {
	r, err := c.RoundTrip(t.Context(), u.key(), q)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

// After an early answer the body may fail, or the upstream take no more of it:
// the answer comes whole.
func TestEarlyAnswerOutlivesTheBody(t *testing.T) {
	for _, how := range []string{"source", "closed", "stalled"} {
		t.Run(how, func(t *testing.T) {
			failed := make(chan struct{})
			u := newUpstream(t, func(p *peer) {
				p.request()
				p.send("HTTP/1.1 200 OK\nContent-Length: 10\n\nhello")
				switch how {
				case "closed":
					p.CloseRead()
				}
				<-failed
				p.send("world")
			})
			c := newClient(t)
			q := post("")
			q.ContentLength = 1 << 30
			q.StallTimeout = 50 * time.Millisecond
			if how == "source" {
				q.StallTimeout = 0
			}
			began := make(chan struct{})
			q.Body = readerFunc(func(b []byte) (int, error) {
				<-began
				if how == "source" {
					return 0, http.ErrBodyReadAfterClose
				}
				return len(b), nil
			})
			r, err := c.RoundTrip(t.Context(), u.key(), q)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			close(began)
			if how != "closed" {
				until(t, "sending fails", func() bool { return http1.SendError(r) != nil })
			}
			close(failed)
			if body, err := io.ReadAll(r); string(body) != "helloworld" || err != nil {
				t.Errorf("got %q, %v; want helloworld", body, err)
			}
		})
	}
}

func TestSendingFails(t *testing.T) {
	ours := errors.New("the client's fault")
	silent := func(p *peer) { io.Copy(io.Discard, p.TCPConn) }
	for _, test := range []struct {
		name  string
		serve func(*peer)
		set   func(*http1.Request)
		want  error
		body  bool
	}{
		{"the body fails", silent, func(q *http1.Request) { q.Body = iotest.ErrReader(ours) }, ours, true},
		{"it is too short", silent, func(q *http1.Request) { q.Body, q.ContentLength = strings.NewReader("hell"), 5 }, io.ErrUnexpectedEOF, true},
		{"it stalls", func(p *peer) { <-p.t.Context().Done() }, func(q *http1.Request) {
			q.Body, q.ContentLength, q.StallTimeout = endless, 1<<40, 50*time.Millisecond
		}, http1.ErrStallTimeout, false},
		{"the header stalls", func(p *peer) { <-p.t.Context().Done() }, func(q *http1.Request) {
			q.Header = http.Header{"X": slices.Repeat([]string{strings.Repeat("x", 1<<20)}, 16)}
			q.ContentLength, q.StallTimeout = 0, 50*time.Millisecond
		}, http1.ErrStallTimeout, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := newUpstream(t, func(p *peer) { test.serve(p) })
			c := newClient(t)
			q := post("hello")
			test.set(q)
			_, err := c.RoundTrip(t.Context(), u.key(), q)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v; want %v", err, test.want)
			}
			if _, ok := errors.AsType[*http1.BodyError](err); ok != test.body {
				t.Errorf("got %T; a BodyError: want %v", err, test.body)
			}
			if got := c.Stats().Open; got != 0 {
				t.Errorf("got %d connections; want none", got)
			}
		})
	}
}

// An upstream may refuse a long request before it has read it, and be gone.
func TestRefusedBeforeItIsSent(t *testing.T) {
	u := newUpstream(t, func(p *peer) {
		p.Peek(1)
		p.send("HTTP/1.1 431 Too Large\nConnection: close\nContent-Length: 2\n\nno")
		p.reset()
	})
	c := newClient(t)
	for _, set := range []func(*http1.Request){
		func(q *http1.Request) { q.ContentLength, q.Body = 1<<40, endless },
		func(q *http1.Request) {
			q.ContentLength = 0
			q.Header = http.Header{"X": slices.Repeat([]string{strings.Repeat("x", 1<<20)}, 16)}
		},
	} {
		q := post("")
		set(q)
		r, err := c.RoundTrip(t.Context(), u.key(), q)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(r); r.Status != 431 || string(body) != "no" || err != nil {
			t.Errorf("got %d with %q, %v; want 431 with no", r.Status, body, err)
		}
		r.Close()
	}
}

// No Read of the body begins after Close.
func TestCloseEndsReading(t *testing.T) {
	u := newUpstream(t, func(p *peer) {
		p.request()
		p.send("HTTP/1.1 200 OK\nContent-Length: 0\n\n")
		io.Copy(io.Discard, p)
	})
	c := newClient(t)
	for range 50 {
		var closed atomic.Bool
		var late atomic.Int32
		q := post("")
		q.ContentLength = -1
		q.Body = readerFunc(func(b []byte) (int, error) {
			if closed.Load() {
				late.Add(1)
			}
			return 1, nil
		})
		r, err := c.RoundTrip(t.Context(), u.key(), q)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		closed.Store(true)
		time.Sleep(time.Millisecond)
		if late.Load() > 1 {
			t.Fatalf("got %d reads after Close; want at most the one that was under way", late.Load())
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

var endless = readerFunc(func(b []byte) (int, error) { return len(b), nil })

// A response's bytes may come in any parts.
func TestSegments(t *testing.T) {
	answer := crlf("HTTP/1.1 103 Hi\nX: y\n\nHTTP/1.1 200 OK\nTransfer-Encoding: chunked\nA-B: c\n\n5;x\nhello\n006\n world\n0\nT: u\n\n")
	for size := 1; size < len(answer); size += 3 {
		u := newUpstream(t, func(p *peer) {
			p.SetNoDelay(true)
			for p.request() != nil {
				for part := range slices.Chunk([]byte(answer), size) {
					p.TCPConn.Write(part)
				}
			}
		})
		c := newClient(t)
		for range 2 {
			r, body := ask(t, c, u, get("/"))
			if body != "hello world" || !reflect.DeepEqual(r.Trailer, http.Header{"T": {"u"}}) || r.Header.Get("A-B") != "c" {
				t.Errorf("parts of %d: got %q, %v, %v", size, body, r.Header, r.Trailer)
			}
		}
		if got := u.accepted(); got != 1 {
			t.Errorf("parts of %d: got %d connections; want 1", size, got)
		}
	}
}
