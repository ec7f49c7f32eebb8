package http1_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

func TestResponses(t *testing.T) {
	for _, test := range []struct {
		name, method, answer string
		status               int
		body                 string
		reused               bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, "hello", true},
		{"no reason", "GET", "HTTP/1.1 200\nContent-Length: 0\n\n", 200, "", true},
		{"chunked", "GET", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nhe\n3;x=\"y\"\nllo\n0\n\n", 200, "hello", true},
		{"chunked in capitals", "GET", "HTTP/1.1 200 OK\ntransfer-encoding: Chunked\n\n00A  \nhellohello\n0\n\n", 200, "hellohello", true},
		{"to the end", "GET", "HTTP/1.1 200 OK\n\nhello", 200, "hello", false},
		{"close", "GET", "HTTP/1.1 200 OK\nContent-Length: 5\nConnection: x, Close\n\nhello", 200, "hello", false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\nContent-Length: 5\n\nhello", 200, "hello", false},
		{"HTTP/1.0, kept", "GET", "HTTP/1.0 200 OK\nContent-Length: 5\nConnection: keep-alive\n\nhello", 200, "hello", true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\nContent-Length: 5\n\n", 200, "", true},
		{"HEAD, chunked", "HEAD", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", 200, "", true},
		{"HEAD without length", "HEAD", "HTTP/1.1 200 OK\n\n", 200, "", true},
		{"204", "GET", "HTTP/1.1 204 No Content\n\n", 204, "", true},
		{"204 with a body", "GET", "HTTP/1.1 204 No Content\nContent-Length: 5\n\nhello", 204, "", false},
		{"204, chunked", "GET", "HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n\n", 204, "", false},
		{"304", "GET", "HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n", 304, "", true},
		{"100 unasked", "GET", "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, "hello", true},
		{"bytes after it", "GET", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhelloHTTP/1.1 200 OK\n", 200, "hello", false},
		{"bytes after an empty one", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\nHTTP/1.1 200 OK\n", 200, "", false},
		{"bytes after a 204", "GET", "HTTP/1.1 204 No Content\n\nx", 204, "", false},
		{"CRLF after chunks", "GET", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\n\n\n", 200, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := newUpstream(t, func(p *peer) {
				for p.request() != nil {
					p.send(test.answer)
					if !test.reused {
						return
					}
				}
			})
			c := newClient(t)
			q := get("/")
			q.Method = test.method
			for range 2 {
				r, body := ask(t, c, u, q)
				if r.Status != test.status || body != test.body {
					t.Errorf("got %d with %q; want %d with %q", r.Status, body, test.status, test.body)
				}
			}
			want := 2
			if test.reused {
				want = 1
			}
			if got := u.accepted(); got != want {
				t.Errorf("got %d connections; want %d", got, want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for name, answer := range map[string]string{
		"length and coding":            "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
		"two lengths":                  "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\nhello",
		"the same length twice":        "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\nhello",
		"a list of lengths":            "HTTP/1.1 200 OK\nContent-Length: 5, 5\n\nhello",
		"+5":                           "HTTP/1.1 200 OK\nContent-Length: +5\n\nhello",
		"-5":                           "HTTP/1.1 200 OK\nContent-Length: -5\n\nhello",
		"0x5":                          "HTTP/1.1 200 OK\nContent-Length: 0x5\n\nhello",
		"no length":                    "HTTP/1.1 200 OK\nContent-Length:\n\nhello",
		"a length beyond all":          "HTTP/1.1 200 OK\nContent-Length: 18446744073709551621\n\nhello",
		"a length of two to HEAD":      "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\n",
		"gzip, chunked":                "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
		"identity":                     "HTTP/1.1 200 OK\nTransfer-Encoding: identity\n\nhello",
		"xchunked":                     "HTTP/1.1 200 OK\nTransfer-Encoding: xchunked\n\n0\n\n",
		"chunked twice":                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n",
		"chunked in HTTP/1.0":          "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n0\n\n",
		"HTTP/0.9":                     "hello, world",
		"HTTP/2":                       "HTTP/2.0 200 OK\nContent-Length: 0\n\n",
		"HTTP/1.2":                     "HTTP/1.2 200 OK\nContent-Length: 0\n\n",
		"http":                         "http/1.1 200 OK\nContent-Length: 0\n\n",
		"two spaces":                   "HTTP/1.1  200 OK\nContent-Length: 0\n\n",
		"four digits":                  "HTTP/1.1 2000 OK\nContent-Length: 0\n\n",
		"two digits":                   "HTTP/1.1 20 OK\nContent-Length: 0\n\n",
		"status 099":                   "HTTP/1.1 099 OK\nContent-Length: 0\n\n",
		"a line before":                "\nHTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"bare CR in the reason":        "HTTP/1.1 200 O\rK\nContent-Length: 0\n\n",
		"NUL in a value":               "HTTP/1.1 200 OK\nX: a\x00b\nContent-Length: 0\n\n",
		"bare CR in a value":           "HTTP/1.1 200 OK\nX: a\rb\nContent-Length: 0\n\n",
		"CR CR LF":                     "HTTP/1.1 200 OK\nX: a\r\nContent-Length: 0\n\n",
		"a space before a colon":       "HTTP/1.1 200 OK\nContent-Length : 0\n\n",
		"a space in a name":            "HTTP/1.1 200 OK\nX Y: 0\nContent-Length: 0\n\n",
		"no colon":                     "HTTP/1.1 200 OK\nXY\nContent-Length: 0\n\n",
		"no name":                      "HTTP/1.1 200 OK\n: y\nContent-Length: 0\n\n",
		"a folded line":                "HTTP/1.1 200 OK\nX: a\n b\nContent-Length: 0\n\n",
		"a folded first line":          "HTTP/1.1 200 OK\n X: a\nContent-Length: 0\n\n",
		"101 unasked":                  "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n\n",
		"a trailer that frames":        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: Content-Length\n\n0\n\n",
		"an interim that is malformed": "HTTP/1.1 103 Early Hints\nX : y\n\nHTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"a body in an interim":         "HTTP/1.1 103 Early Hints\nContent-Length: 5\n\nhelloHTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"interim ones without end":     strings.Repeat("HTTP/1.1 102 Processing\n\n", 1100) + "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"a header without end":         "HTTP/1.1 200 OK\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\n", 1100) + "\n",
		"short fields":                 "HTTP/1.1 200 OK\n" + strings.Repeat("X:\n", 10_001) + "\n",
		"long interim ones":            strings.Repeat("HTTP/1.1 103 Early Hints\nX: "+strings.Repeat("y", 5000)+"\n\n", 250) + "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"a line without end":           "HTTP/1.1 200 OK\nX: " + strings.Repeat("y", 1100_000) + "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, crlf(answer))
		})
	}
	for name, answer := range map[string]string{
		"bare LF after the status": "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
		"bare LF after a field":    "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
		"bare LF at the end":       "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
		"bare CR at the end":       "HTTP/1.1 200 OK\r\nContent-Length: 0\r\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) { refused(t, answer) })
	}
}

// refused checks that a request for which there is a malformed answer fails,
// and that its connection is gone.
func refused(t *testing.T, answer string) {
	u := newUpstream(t, func(p *peer) {
		p.request()
		io.WriteString(p.TCPConn, answer)
		io.Copy(io.Discard, p)
	})
	c := newClient(t)
	r, err := c.RoundTrip(t.Context(), u.key(), get("/"))
	if err == nil {
		r.Close()
	}
	if _, ok := errors.AsType[*http1.ProtocolError](err); !ok {
		t.Fatalf("got %v; want a ProtocolError", err)
	}
	if got := c.Stats().Open; got != 0 {
		t.Errorf("got %d connections; want none", got)
	}
}

func TestBrokenBodies(t *testing.T) {
	const head = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"
	for name, answer := range map[string]string{
		"too short":               "HTTP/1.1 200 OK\nContent-Length: 6\n\nhello",
		"no last chunk":           head + "5\nhello\n",
		"no trailer":              head + "5\nhello\n0\n",
		"half a chunk":            head + "9\nhello",
		"no size":                 head + "5\nhello\n\n0\n\n",
		"0x0":                     head + "5\nhello\n0x0\n\n",
		"-0":                      head + "5\nhello\n-0\n\n",
		"+0":                      head + "5\nhello\n+0\n\n",
		"a space before the size": head + "5\nhello\n 0\n\n",
		"a size beyond all":       head + "5\nhello\nfffffffffffffffff\n",
		"zeros without end":       head + "5\nhello\n0000000000000000000000000000\n\n",
		"a chunk that is longer":  head + "5\nhello!\n0\n\n",
		"bare CR in a line":       head + "5\nhello\n0\rx\n\n",
		"NUL in an extension":     head + "5\nhello\n0;\x00\n\n",
		"a long extension":        head + "5\nhello\n0;" + strings.Repeat("x", 5000) + "\n\n",
		"long extensions":         head + "5\nhello\n" + strings.Repeat("1;"+strings.Repeat("x", 1000)+"\n \n", 100) + "0\n\n",
		"a malformed trailer":     head + "5\nhello\n0\nx y: z\n\n",
		"a folded trailer":        head + "5\nhello\n0\nx: z\n y\n\n",
		"a trailer without end":   head + "5\nhello\n0\n" + strings.Repeat("x: y\n", 300_000) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, func(p *peer) {
				p.request()
				p.send(answer)
				p.CloseWrite()
				io.Copy(io.Discard, p)
			})
			c := newClient(t)
			r, err := c.RoundTrip(t.Context(), u.key(), get("/"))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			body, err := io.ReadAll(r)
			if err == nil {
				t.Errorf("got %q and no error; want one", body)
			}
			if !strings.HasPrefix(string(body), "hello") {
				t.Errorf("got %.20q before the error; want hello", body)
			}
			if _, again := r.Read(make([]byte, 1)); again != err {
				t.Errorf("then got %v; want %v", again, err)
			}
			if got := c.Stats().Open; got != 0 {
				t.Errorf("got %d connections; want none", got)
			}
		})
	}
	t.Run("bare LF", func(t *testing.T) {
		for _, chunks := range []string{"5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r\n0\n\r\n", "5\r\nhello\r\n0\r\n\n"} {
			u := newUpstream(t, func(p *peer) {
				p.request()
				io.WriteString(p.TCPConn, crlf(head)+chunks)
				io.Copy(io.Discard, p)
			})
			c := newClient(t)
			r, err := c.RoundTrip(t.Context(), u.key(), get("/"))
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(r); err == nil {
				t.Errorf("%q: got %q and no error; want one", chunks, body)
			}
			r.Close()
		}
	})
}

func TestHeaderAndTrailer(t *testing.T) {
	u := newUpstream(t, func(p *peer) {
		p.request()
		p.send("HTTP/1.1 200 fine\ncontent-TYPE:text/plain\nSet-Cookie: a=1\nX-Empty: \nConnection: X-Hop, keep-alive\n" +
			"set-cookie:\t b=2 \t\nX-Hop: 1\nKeep-Alive: timeout=5\nTransfer-Encoding: chunked\nTrailer: X-Sum, x-Never\nX-Latin: \xe9\n\n" +
			"5\nhello\n0\nx-sum: 7\nContent-Length: 3\nX-More: 8\n\n")
	})
	c := newClient(t)
	r, err := c.RoundTrip(t.Context(), u.key(), get("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := http.Header{"Content-Type": {"text/plain"}, "Set-Cookie": {"a=1", "b=2"}, "X-Empty": {""}, "Connection": {"X-Hop, keep-alive"},
		"X-Hop": {"1"}, "Keep-Alive": {"timeout=5"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X-Sum, x-Never"}, "X-Latin": {"\xe9"}}
	if !reflect.DeepEqual(r.Header, want) {
		t.Errorf("got %v; want %v", r.Header, want)
	}
	if want := (http.Header{"X-Sum": nil, "X-Never": nil}); !reflect.DeepEqual(r.Trailer, want) {
		t.Errorf("before the end got %v; want %v", r.Trailer, want)
	}
	io.Copy(io.Discard, r)
	if want := (http.Header{"X-Sum": {"7"}, "X-More": {"8"}, "X-Never": nil}); !reflect.DeepEqual(r.Trailer, want) {
		t.Errorf("after the end got %v; want %v", r.Trailer, want)
	}
}

func TestInterim(t *testing.T) {
	u := newUpstream(t, func(p *peer) {
		for p.request() != nil {
			p.send("HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 102 Processing\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok")
		}
	})
	c := newClient(t)
	q := get("/")
	var got []any
	q.Interim = func(status int, header http.Header) error {
		got = append(got, status, header)
		return nil
	}
	if _, body := ask(t, c, u, q); body != "ok" {
		t.Errorf("got %q; want ok", body)
	}
	if want := []any{103, http.Header{"Link": {"</a>"}}, 102, http.Header{}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v; want %v", got, want)
	}
	gone := errors.New("gone")
	q.Interim = func(int, http.Header) error { return gone }
	if _, err := c.RoundTrip(t.Context(), u.key(), q); err != gone {
		t.Errorf("got %v; want the callback's error", err)
	}
}

func TestTimeouts(t *testing.T) {
	const soon = 30 * time.Millisecond
	for _, test := range []struct {
		name   string
		set    func(*http1.Request)
		answer string
		want   error
	}{
		{"header", func(q *http1.Request) { q.HeaderTimeout = soon }, "", http1.ErrHeaderTimeout},
		{"within the header", func(q *http1.Request) { q.HeaderTimeout = soon }, "HTTP/1.1 200 OK\n", http1.ErrHeaderTimeout},
		{"after an interim", func(q *http1.Request) { q.HeaderTimeout = soon }, "HTTP/1.1 103 Hi\n\n", http1.ErrHeaderTimeout},
		{"later than the context is watched", func(q *http1.Request) { q.HeaderTimeout = 150 * time.Millisecond }, "", http1.ErrHeaderTimeout},
		{"stream", func(q *http1.Request) { q.HeaderTimeout, q.StreamTimeout = soon, soon }, "HTTP/1.1 200 OK\nContent-Length: 6\n\nhello", http1.ErrStreamTimeout},
		{"chunks", func(q *http1.Request) { q.StreamTimeout = soon }, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n6\nhello", http1.ErrStreamTimeout},
		{"within the trailer", func(q *http1.Request) { q.StreamTimeout = soon }, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\nx", http1.ErrStreamTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := newUpstream(t, func(p *peer) {
				p.request()
				p.send(test.answer)
				io.Copy(io.Discard, p)
			})
			c := newClient(t)
			q := get("/")
			test.set(q)
			r, err := c.RoundTrip(t.Context(), u.key(), q)
			if err == nil {
				var body []byte
				body, err = io.ReadAll(r)
				r.Close()
				if string(body) != "hello" {
					t.Errorf("got %q before; want hello", body)
				}
			}
			if err != test.want {
				t.Errorf("got %v; want %v", err, test.want)
			}
		})
	}
}

// A timeout bounds waiting, not the whole.
func TestTimeoutsArePaused(t *testing.T) {
	const step = 60 * time.Millisecond
	u := newUpstream(t, func(p *peer) {
		p.request()
		time.Sleep(step)
		p.send("HTTP/1.1 200 OK\nContent-Length: 5\n\n")
		for _, c := range "hello" {
			time.Sleep(step)
			p.send(string(c))
		}
	})
	c := newClient(t)
	q := get("/")
	q.HeaderTimeout, q.StreamTimeout = 4*step, 4*step
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := c.RoundTrip(ctx, u.key(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if body, err := io.ReadAll(r); string(body) != "hello" || err != nil {
		t.Errorf("got %q, %v; want hello", body, err)
	}
}

func TestCancel(t *testing.T) {
	why := errors.New("why")
	for _, stage := range []string{"", "HTTP/1.1 200 OK\nContent-Length: 6\n\n", "HTTP/1.1 200 OK\nContent-Length: 600000\n\n" + strings.Repeat("x", 200_000)} {
		for _, abort := range []bool{false, true} {
			if abort && stage == "" {
				continue // there is no Response yet
			}
			gone := make(chan struct{})
			u := newUpstream(t, func(p *peer) {
				p.request()
				p.send(stage)
				io.Copy(io.Discard, p)
				close(gone)
			})
			c := newClient(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(20*time.Millisecond, func() {
				if !abort {
					cancel(why)
				}
			})
			r, err := c.RoundTrip(ctx, u.key(), get("/"))
			if err == nil {
				if abort {
					time.AfterFunc(20*time.Millisecond, func() { r.Abort(why) })
				}
				_, err = r.WriteTo(io.Discard)
				r.Close()
			}
			if err != why {
				t.Errorf("abort %v, stage %.20q: got %v; want the cause", abort, stage, err)
			}
			cancel(nil)
			select {
			case <-gone:
			case <-time.After(wait):
				t.Error("the upstream's connection is still there")
			}
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := newClient(t).RoundTrip(ctx, http1.Key{}, get("/")); err != why {
		t.Errorf("when it has ended before: got %v; want the cause", err)
	}
}

func TestHijack(t *testing.T) {
	u := newUpstream(t, func(p *peer) {
		if r := p.request(); r.Header.Get("Upgrade") != "SPDY/3.1" || r.Header.Get("Connection") != "Upgrade" {
			t.Errorf("got %v", r.Header)
		}
		p.send("HTTP/1.1 103 Early Hints\n\nHTTP/1.1 101 Switching Protocols\nConnection: Upgrade, close\nUpgrade: SPDY/3.1\n\nearly")
		io.Copy(p.TCPConn, p)
		p.send("late")
	})
	c := newClient(t)
	q := get("/")
	q.Upgrade = "SPDY/3.1"
	q.HeaderTimeout = wait
	r, err := c.RoundTrip(t.Context(), u.key(), q)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Header["Connection"]; len(got) != 1 || got[0] != "Upgrade, close" {
		t.Errorf("got Connection %q; want it as it was sent", got)
	}
	conn, first, err := r.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r.Close()
	io.WriteString(conn, ", echo, ")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	rest, err := io.ReadAll(conn)
	if got := string(first) + string(rest); got != "early, echo, late" || err != nil {
		t.Errorf("got %q, %v; want early, echo, late", got, err)
	}
	if _, _, err := r.Hijack(); err == nil {
		t.Error("a second Hijack is no error")
	}
}
