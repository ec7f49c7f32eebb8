package slipswitch_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/slipswitch/slipswitch"
	"pgregory.net/rapid"
)

// TestLoadsAreGivenBack: however requests and tunnels to one of several upstreams
// end, in whatever order, none is counted for ever.
func TestLoadsAreGivenBack(t *testing.T) {
	ways := []string{
		"whole", "empty", "truncated", "reset", "early hints", "refused", "invalid 101", "tunnel", "tunnel, reset",
		"client leaves", "client leaves the body", "panic: WriteHeader", "panic: Write", "panic: TunnelValue",
		"hijack fails", "101 cannot be written",
	}
	list := make([]*upstream, 2)
	for i := range list {
		list[i] = startScript(t, answerAsAsked)
	}
	r := route("/a", list...)
	r.Upstreams = append(r.Upstreams, slipswitch.Upstream{URL: refusing(t)}, slipswitch.Upstream{URL: list[0].url, Weight: 2})
	p := &slipswitch.Proxy{
		TunnelValue: func(r *http.Request) any {
			if r.Header.Get("X-Way") == "panic: TunnelValue" {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
		Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(&faulty{w, r.Header.Get("X-Way")}, r)
			})
		},
		TunnelClosed: func(slipswitch.CloseReport) {},
	}
	g := startGateway(t, p, r)
	rapid.Check(t, func(rt *rapid.T) {
		var clients sync.WaitGroup
		for _, way := range rapid.SliceOfN(rapid.SampledFrom(ways), 1, 20).Draw(rt, "ways") {
			client := g.dial()
			raw := request("GET", "/a", "X-Way: "+way)
			switch way {
			case "refused", "invalid 101", "tunnel", "tunnel, reset", "panic: TunnelValue", "hijack fails", "101 cannot be written":
				raw = handshake("/a", "X-Way: "+way)
			case "client leaves the body":
				raw = request("POST", "/a", "X-Way: "+way, "Content-Length: 10") + "12345"
			}
			client.send(raw)
			clients.Go(func() {
				defer client.Close()
				switch way {
				case "client leaves", "client leaves the body":
				case "tunnel":
					if head, err := client.head(); err != nil || !strings.Contains(head, " 101 ") {
						t.Errorf("%s: got %q, %v", way, head, err)
					}
				default:
					client.rest0()
				}
			})
		}
		clients.Wait()
		until(t, "nothing is in use", func() bool { return p.InUse() == 0 })
	})
	g.tunnels(0)
}

// answerAsAsked answers one request in the way that it asks for.
func answerAsAsked(u *upstream, p *peer) (opened bool) {
	r, err := p.request()
	if err != nil {
		return false
	}
	send := func(s string) { io.WriteString(p.TCPConn, s) }
	switch r.Header.Get("X-Way") {
	case "truncated":
		send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
	case "reset":
		p.reset()
	case "empty":
		send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	case "early hints":
		send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok("", "Connection: close"))
	case "refused":
		send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
	case "invalid 101":
		send(strings.Replace(switching(), accept, key, 1))
	case "tunnel, reset":
		send(switching())
		p.reset()
	case "tunnel", "panic: TunnelValue", "hijack fails", "101 cannot be written":
		send(switching())
		p.rest()
	case "client leaves":
		p.rest()
	default:
		send(ok("hello", "Connection: close"))
	}
	return false
}

// rest0 reads until nothing comes any more, in whatever way that ends.
func (p *peer) rest0() {
	answer, err := http.ReadResponse(p.r, nil)
	if err == nil && answer.StatusCode != http.StatusSwitchingProtocols {
		io.Copy(io.Discard, answer.Body)
	}
}

// A faulty writer does what a framework's may do.
type faulty struct {
	http.ResponseWriter
	way string
}

func (w *faulty) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *faulty) WriteHeader(status int) {
	if w.way == "panic: WriteHeader" {
		panic(http.ErrAbortHandler)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *faulty) Write(b []byte) (int, error) {
	if w.way == "panic: Write" {
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(b)
}

func (w *faulty) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.way == "hijack fails" {
		return nil, nil, errors.New("no")
	}
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.way == "101 cannot be written" {
		conn.Close()
	}
	return conn, buffered, err
}

// An h2c upstream that says what HTTP/1 cannot: a status of four digits, and a 101
// as an interim response. The client hears of neither.
func TestStatusesOverHTTP2(t *testing.T) {
	status := func(flags byte, digits string) string {
		block := "\x08" + string(rune(len(digits))) + digits // :status, literal, not indexed (RFC 7541 §6.2.2)
		return "\x00\x00" + string(rune(len(block))) + "\x01" + string(flags) + "\x00\x00\x00\x01" + block
	}
	const settings, more, last = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", 4, 5
	for name, test := range map[string]struct {
		frames string
		want   int
	}{
		"204":              {status(last, "204"), 204},
		"1000":             {status(last, "1000"), 502},
		"99":               {status(last, "99"), 502},
		"interim 101":      {status(more, "101") + status(last, "204"), 204},
		"interim 103":      {status(more, "103") + status(last, "204"), 204},
		"101 at the end":   {status(last, "101"), 502},
		"1000 with a body": {status(more, "1000") + "\x00\x00\x01\x00\x01\x00\x00\x00\x01x", 502},
	} {
		t.Run(name, func(t *testing.T) {
			u := startScript(t, func(u *upstream, p *peer) bool {
				if _, err := io.ReadFull(p, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
					return false
				}
				io.WriteString(p.TCPConn, settings)
				for head := make([]byte, 9); ; {
					if _, err := io.ReadFull(p, head); err != nil {
						return false
					}
					io.CopyN(io.Discard, p, int64(head[1])<<8|int64(head[2]))
					if head[3] == 1 { // HEADERS
						io.WriteString(p.TCPConn, test.frames)
					}
				}
			})
			u.url = "h2c" + strings.TrimPrefix(u.url, "http")
			g := startGateway(t, &slipswitch.Proxy{}, route("/a", u, u))
			client := g.dial()
			client.send(request("GET", "/a"))
			for {
				r, err := http.ReadResponse(client.r, nil)
				if err != nil {
					t.Fatal(err)
				}
				if r.StatusCode == 103 {
					continue
				}
				if r.StatusCode != test.want {
					t.Errorf("got %s; want %d", r.Status, test.want)
				}
				break
			}
			client.Close()
			until(t, "nothing is in use", func() bool { return g.InUse() == 0 })
		})
	}
}
