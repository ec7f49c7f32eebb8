package slipswitch_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestTimeouts are answered with 504.
func TestTimeouts(t *testing.T) {
	const short = 50 * time.Millisecond
	silent := startScript(t, func(u *upstream, p *peer) bool {
		p.rest()
		return false
	})
	deaf := startScript(t, func(u *upstream, p *peer) bool {
		p.SetReadBuffer(4 << 10)
		p.head()
		<-t.Context().Done()
		return false
	})
	never := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for name, test := range map[string]struct {
		route slipswitch.Route
		raw   string
		dial  func(context.Context, string, string) (net.Conn, error)
	}{
		"dial":              {slipswitch.Route{DialTimeout: short}, request("GET", "/"), never},
		"dial of upgrade":   {slipswitch.Route{DialTimeout: short}, handshake("/"), never},
		"handshake's dial":  {slipswitch.Route{HandshakeTimeout: short}, handshake("/"), never},
		"handshake":         {slipswitch.Route{HandshakeTimeout: short}, handshake("/"), nil},
		"header":            {slipswitch.Route{HeaderTimeout: short}, request("GET", "/"), nil},
		"header after body": {slipswitch.Route{HeaderTimeout: short}, request("POST", "/", "Content-Length: 3") + "abc", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.route.Path, test.route.Upstreams = "/", slipswitch.To(silent.url)
			g := startGateway(t, &slipswitch.Proxy{DialContext: test.dial}, test.route)
			if a := g.do(test.raw); a.StatusCode != 504 {
				t.Errorf("got %s; want 504", a.Status)
			}
		})
	}
	t.Run("upload", func(t *testing.T) {
		t.Parallel()
		r := route("/", deaf)
		r.StallTimeout = short
		g := startGateway(t, &slipswitch.Proxy{}, r)
		client := g.dial()
		go func() {
			io.WriteString(client.TCPConn, request("POST", "/", "Content-Length: 1000000000"))
			io.Copy(client.TCPConn, io.LimitReader(zeros{}, 1_000_000_000))
		}()
		if a := client.answer("POST"); a.StatusCode != 504 {
			t.Errorf("got %s; want 504", a.Status)
		}
		client.reset()
	})
	t.Run("Middleware's deadline", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithTimeout(r.Context(), short)
				defer cancel()
				next.ServeHTTP(w, r.WithContext(ctx))
			})
		}}, route("/", silent))
		for _, raw := range []string{request("GET", "/"), handshake("/")} {
			if a := g.do(raw); a.StatusCode != 504 {
				t.Errorf("got %s; want 504", a.Status)
			}
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestStreamTimeout aborts a response that does not go on; it does not end it.
func TestStreamTimeout(t *testing.T) {
	t.Parallel()
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
		p.rest()
		return false
	})
	r := route("/", u)
	r.StreamTimeout = 100 * time.Millisecond
	g := startGateway(t, &slipswitch.Proxy{}, r)
	if a := g.get("/"); a.StatusCode != 200 || a.body != "first" || !errors.Is(a.err, io.ErrUnexpectedEOF) {
		t.Errorf("got %s %q, %v; want an error", a.Status, a.body, a.err)
	}
}

// TestClientStall: a client that takes nothing of a download, or of a refusal
// of its upgrade, is given up.
func TestClientStall(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{"download": request("GET", "/"), "refusal": handshake("/")} {
		for _, length := range []string{"Content-Length: 1000000000000", "Transfer-Encoding: chunked"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				gone := make(chan struct{})
				u := startScript(t, func(u *upstream, p *peer) bool {
					defer close(gone)
					p.head()
					io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\n"+length+"\r\n\r\n")
					part := strings.Repeat("x", 1<<16)
					if strings.HasPrefix(length, "T") {
						part = "10000\r\n" + part + "\r\n"
					}
					for {
						if _, err := io.WriteString(p.TCPConn, part); err != nil {
							return false
						}
					}
				})
				r := route("/", u)
				r.StallTimeout = 100 * time.Millisecond
				g := startGateway(t, &slipswitch.Proxy{}, r)
				client := g.dial()
				client.send(raw)
				client.head()
				select {
				case <-gone:
				case <-time.After(wait):
					t.Error("the upstream goes on")
				}
				until(t, "the request is over", func() bool { return g.running.Load() == 0 })
			})
		}
	}
}

// TestHTTP2ClientStall: the same for one stream of many.
func TestHTTP2ClientStall(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	u := startScript(t, func(u *upstream, p *peer) bool {
		defer close(gone)
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
		io.Copy(p.TCPConn, zeros{})
		return false
	})
	r := route("/", u)
	r.StallTimeout = 100 * time.Millisecond
	g := startGateway(t, &slipswitch.Proxy{}, r)
	q, _ := http.NewRequest("GET", "http://"+g.addr, nil)
	q.Host = host
	response, err := http2Client(t).RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	select {
	case <-gone:
	case <-time.After(wait):
		t.Error("the upstream goes on")
	}
}

// TestQuietStreamIsNoStall: an upstream may pause for longer than the client
// may stall, over HTTP/2 too, and so may a connection between two requests.
func TestQuietStreamIsNoStall(t *testing.T) {
	t.Parallel()
	const stall = 100 * time.Millisecond
	u := startScript(t, func(u *upstream, p *peer) bool {
		for {
			head, err := p.head()
			if err != nil {
				return false
			}
			part, end := "5\r\ndata\n\r\n", "0\r\n\r\n"
			if strings.Contains(head, "/sized") {
				io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
				part, end = "data\n", ""
			} else {
				io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
			}
			for range 3 {
				io.WriteString(p.TCPConn, part)
				<-time.After(3 * stall)
			}
			io.WriteString(p.TCPConn, end)
		}
	})
	r := route("/", u)
	r.StallTimeout = stall
	g := startGateway(t, &slipswitch.Proxy{}, r)
	for _, transport := range []*http.Transport{http2Client(t), {}} {
		t.Cleanup(transport.CloseIdleConnections)
		for _, path := range []string{"/", "/sized", "/"} {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			q, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.addr+path, nil)
			q.Host = host
			response, err := transport.RoundTrip(q)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if want := strings.Repeat("data\n", 3); string(body) != want || err != nil {
				t.Errorf("%s: got %q, %v; want %q", response.Proto, body, err, want)
			}
		}
	}
}

// TestRefusalIsAnOrdinaryResponse: an upgrade that is answered by another
// response than 101 gets all that a plain request would get.
func TestRefusalIsAnOrdinaryResponse(t *testing.T) {
	for name, raw := range map[string]string{"plain": request("GET", "/"), "upgrade": handshake("/")} {
		// What comes is passed on as it comes, trailers at the end.
		t.Run(name+"/stream", func(t *testing.T) {
			t.Parallel()
			more := make(chan string)
			u := startScript(t, func(u *upstream, p *peer) bool {
				p.head()
				io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n")
				for part := range more {
					io.WriteString(p.TCPConn, part)
				}
				return false
			})
			g := startGateway(t, &slipswitch.Proxy{Limits: slipswitch.Limits{Tunnels: 1}}, route("/", u))
			client := g.dial()
			client.send(raw)
			client.SetReadDeadline(time.Now().Add(wait))
			response, err := http.ReadResponse(client.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				more <- "5\r\ndata\n\r\n"
				got := make([]byte, 5)
				if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != "data\n" {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			if n := slipswitch.Tunneling(g.Proxy); n != 0 {
				t.Errorf("%d seats of tunnels are taken", n)
			}
			more <- "0\r\nX-End: 1\r\n\r\n"
			if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 || response.Trailer.Get("X-End") != "1" {
				t.Errorf("got %q, %v, trailer %v", rest, err, response.Trailer)
			}
			close(more)
		})
		// It is activity, and ends when it does not go on.
		t.Run(name+"/timeout", func(t *testing.T) {
			t.Parallel()
			u := startScript(t, func(u *upstream, p *peer) bool {
				p.head()
				io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst")
				p.rest()
				return false
			})
			r := route("/", u)
			r.StreamTimeout = 100 * time.Millisecond
			g := startGateway(t, &slipswitch.Proxy{}, r)
			if a := g.do(raw); a.StatusCode != 200 || a.body != "first" || !errors.Is(a.err, io.ErrUnexpectedEOF) {
				t.Errorf("got %s %q, %v; want an error", a.Status, a.body, a.err)
			}
		})
		// It may pause for longer than a handshake may last.
		t.Run(name+"/long", func(t *testing.T) {
			t.Parallel()
			const short = 100 * time.Millisecond
			u := startScript(t, func(u *upstream, p *peer) bool {
				p.head()
				io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
				<-time.After(3 * short)
				io.WriteString(p.TCPConn, "later")
				return false
			})
			r := route("/", u)
			r.HandshakeTimeout = short
			g := startGateway(t, &slipswitch.Proxy{}, r)
			if a := g.do(raw); a.body != "firstlater" || a.err != nil {
				t.Errorf("got %s %q, %v", a.Status, a.body, a.err)
			}
		})
		t.Run(name+"/client leaves", func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			u := startScript(t, func(u *upstream, p *peer) bool {
				defer close(ended)
				p.head()
				io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
				p.rest()
				return false
			})
			g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
			client := g.dial()
			client.send(raw)
			client.head()
			client.Close()
			receive(t, "the upstream's connection ends", ended)
		})
	}
}
