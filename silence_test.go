package slipswitch_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// post begins a POST of one client to path, of whose body there is one byte, and
// no more comes. Nil is no answer.
func (g *gateway) post(ctx context.Context, c *http.Transport, path, from string) (answered <-chan *http.Response) {
	g.t.Helper()
	reader, writer := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.addr+path, reader)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("X-Forwarded-For", from)
	answers := make(chan *http.Response, 1)
	go func() {
		defer reader.Close() // or the writer would wait
		if response, err := c.RoundTrip(r); err == nil {
			response.Body.Close()
			answers <- response
		}
		close(answers)
	}()
	go writer.Write([]byte{'x'})
	return answers
}

// TestSilentBodies: four connections of 250 requests each, whose bodies do not
// come, take no more of the gateway than one client's share.
func TestSilentBodies(t *testing.T) {
	const most, share = 400, 100
	silent := startScript(t, func(u *upstream, p *peer) bool {
		head, _ := p.head()
		u.keep(received{head: head})
		p.rest()
		return false
	})
	p := &slipswitch.Proxy{TrustedProxies: behind, Limits: slipswitch.Limits{Requests: most}}
	g := startGateway(t, p, route("/slow", silent), route("/quick", answering(t, ok("hello"))))
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var refused, other atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		c := http2Client(t)
		for range 250 {
			answer := g.post(ctx, c, "/slow", "10.0.0.1")
			clients.Go(func() {
				switch response := <-answer; {
				case response == nil: // it has left
				case response.StatusCode == 503 && response.Header.Get("Retry-After") != "":
					refused.Add(1)
				default:
					other.Add(1)
				}
			})
		}
	}
	until(t, "all others are refused", func() bool { return refused.Load() == 1000-share })
	if n := len(silent.all()); n > share {
		t.Errorf("%d requests have reached the upstream; want %d", n, share)
	}
	if a := g.do(request("GET", "/quick", "X-Forwarded-For: 10.0.0.2")); a.StatusCode != 200 {
		t.Errorf("another client is answered %s; want 200", a.Status)
	}
	if got := p.LimitsHit(); got["requestsPerClient"] != 1000-share || len(got) != 1 {
		t.Errorf("limits hit: %v; want requestsPerClient, %d times", got, 1000-share)
	}
	leave()
	clients.Wait()
	if n := other.Load(); n != 0 {
		t.Errorf("%d were answered otherwise", n)
	}
	until(t, "nothing is taken any more", func() bool { return slipswitch.Taken(p) == 0 })
}

// TestRequestLimits, and what they are if nobody says so.
func TestRequestLimits(t *testing.T) {
	type try struct {
		path, client string
		passes       bool
	}
	for _, test := range []struct {
		name, hit string
		limits    slipswitch.Limits
		tries     []try
	}{
		{"in all", "requests", slipswitch.Limits{Requests: 2, RequestsPerRoute: -1, RequestsPerClient: -1},
			[]try{{"/a", "10.0.0.1", true}, {"/b", "10.0.0.1", true}, {"/b", "10.0.0.2", false}}},
		{"per route", "requestsPerRoute", slipswitch.Limits{RequestsPerRoute: 1},
			[]try{{"/a", "10.0.0.1", true}, {"/a/x", "10.0.0.2", false}, {"/b", "10.0.0.2", true}}},
		{"per client", "requestsPerClient", slipswitch.Limits{RequestsPerClient: 1},
			[]try{{"/a", "2001:db8::1", true}, {"/b", "2001:db8::2", false}, {"/b", "2001:db8:1::1", true}}},
		{"half for a route", "requestsPerRoute", slipswitch.Limits{Requests: 4, RequestsPerClient: -1},
			[]try{{"/a", "10.0.0.1", true}, {"/a", "10.0.0.1", true}, {"/a", "10.0.0.2", false}, {"/b", "10.0.0.2", true}}},
		{"a quarter for a client", "requestsPerClient", slipswitch.Limits{Requests: 4},
			[]try{{"/a", "10.0.0.1", true}, {"/b", "10.0.0.1", false}, {"/a", "10.0.0.2", true}}},
		{"at least one", "requests", slipswitch.Limits{Requests: 1}, []try{{"/a", "10.0.0.1", true}, {"/a", "10.0.0.1", false}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			asked, answer := make(chan struct{}), make(chan struct{})
			u := startScript(t, func(u *upstream, p *peer) bool {
				p.request()
				asked <- struct{}{}
				<-answer
				io.WriteString(p.TCPConn, ok("hello", "Connection: close"))
				return false
			})
			p := &slipswitch.Proxy{Limits: test.limits, TrustedProxies: behind}
			g := startGateway(t, p, route("/a", u), route("/b", u))
			var passed []*peer
			for _, try := range test.tries {
				client := g.dial()
				client.send(request("GET", try.path, "X-Forwarded-For: "+try.client))
				if try.passes {
					receive(t, "the upstream is asked", asked)
					passed = append(passed, client)
				} else if a := client.answer("GET"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || strings.Contains(a.body, "limit") {
					t.Errorf("%+v: got %s %v %s; want 503 with Retry-After", try, a.Status, a.Header, a.body)
				}
			}
			close(answer)
			for _, client := range passed {
				if a := client.answer("GET"); a.StatusCode != 200 {
					t.Errorf("got %s; want 200", a.Status)
				}
			}
			if got := p.LimitsHit(); len(got) != 1 || got[test.hit] != 1 {
				t.Errorf("limits hit: %v; want %s", got, test.hit)
			}
			until(t, "nothing is taken any more", func() bool { return slipswitch.Taken(p) == 0 })
		})
	}
}

// TestBodyTimeout is about a body that does not come: 408, whoever reads it.
// Once the response has begun the two may be silent.
func TestBodyTimeout(t *testing.T) {
	silent := startScript(t, func(u *upstream, p *peer) bool {
		p.rest()
		return false
	})
	early := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
		io.ReadFull(p, make([]byte, len("1\r\nx\r\n1\r\ny\r\n0\r\n\r\n")))
		io.WriteString(p.TCPConn, "4\r\nover\r\n0\r\n\r\n")
		return false
	})
	const short = 50 * time.Millisecond
	slow, reads, talk := route("/slow", silent), route("/read", silent), route("/talk", early)
	slow.BodyTimeout, reads.BodyTimeout, talk.BodyTimeout = short, short, short
	g := startGateway(t, &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/read") {
				_, err := io.ReadAll(r.Body)
				fmt.Fprint(w, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}, slow, reads, talk)
	for _, framing := range []string{"Content-Length: 9", "Transfer-Encoding: chunked"} {
		if a := g.do(request("POST", "/slow", framing) + "1\r\nx"); a.StatusCode != 408 || !a.Close {
			t.Errorf("%s: got %s, Connection: close %t; want 408, true", framing, a.Status, a.Close)
		}
		if a := g.do(request("POST", "/read", framing) + "1\r\nx"); !strings.Contains(a.body, "BodyTimeout") {
			t.Errorf("%s: Middleware reads %q", framing, a.body)
		}
	}
	answer := g.post(t.Context(), http2Client(t), "/slow", "10.0.0.1")
	if response := receive(t, "an answer", answer); response == nil || response.StatusCode != 408 {
		t.Errorf("over HTTP/2: got %v; want 408", response)
	}

	client := g.dial()
	client.send(request("POST", "/talk", "Transfer-Encoding: chunked") + "1\r\nx\r\n")
	response, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	begun := make([]byte, len("begun"))
	io.ReadFull(response.Body, begun)
	time.Sleep(3 * short) // in which nothing may happen
	client.send("1\r\ny\r\n0\r\n\r\n")
	if rest, err := io.ReadAll(response.Body); string(begun) != "begun" || string(rest) != "over" || err != nil {
		t.Errorf("got %q, %q, %v; want the whole conversation", begun, rest, err)
	}
}
