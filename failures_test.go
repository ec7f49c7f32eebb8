package slipswitch_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestClientsFaults are not told as the upstream's.
func TestClientsFaults(t *testing.T) {
	t.Parallel()
	var log logBuffer
	u := startUpstream(t, func(r received) string { return ok("") })
	p := &slipswitch.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	g := startGateway(t, p, route("/", u))
	for _, body := range []string{
		"zz\r\nabc\r\n0\r\n\r\n",
		"3\r\nabcd\r\n0\r\n\r\n",
		"ffffffffffffffffff\r\n",
		"3\r\nabc\r\n0\r\nno field\r\n\r\n",
		"3\r\nabc\r\n0\r\nX: " + strings.Repeat("x", 10_000) + "\r\n\r\n",
	} {
		client := g.dial()
		client.send(request("POST", "/", "Transfer-Encoding: chunked") + body)
		if a := client.answer("POST"); a.StatusCode != 400 || !a.Close || a.Header.Get("Proxy-Status") != "slipswitch; error=http_request_error" {
			t.Errorf("%.40q: got %s, close %v; want 400 and the end", body, a.Status, a.Close)
		}
		client.Close()
	}
	for method, want := range map[string]string{"GE T": "400", "G\x7fT": "", "G(T": "400", "GET": "200"} {
		if got := g.http2Status(method, "/"); got != want {
			t.Errorf("HTTP/2, method %q: got %s; want %s", method, got, want)
		}
	}
	receive(t, "all is logged", slipswitch.Logged(p))
	if got := log.String(); got != "" {
		t.Errorf("the log has %q", got)
	}
}

// TestLogIsBounded: clients decide how often something fails, and what it is
// called.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	var log logBuffer
	p := &slipswitch.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	g := startGateway(t, p, slipswitch.Route{Path: "/", Upstreams: slipswitch.To(refusing(t))})
	client := g.dial()
	begin := time.Now()
	for range 200 {
		client.send(request("GET", "/"+strings.Repeat("x", 100_000)))
		if a := client.answer("GET"); a.StatusCode != 502 {
			t.Errorf("got %s", a.Status)
		}
	}
	most := 100 + 10*(int(time.Since(begin)/time.Second)+1)
	receive(t, "all is logged", slipswitch.Logged(p))
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) < 100 || len(lines) > most {
		t.Errorf("got %d lines; want 100 to %d", len(lines), most)
	}
	for _, line := range lines {
		if len(line) > 1000 || !strings.Contains(line, "status=502") {
			t.Errorf("got a line of %d bytes: %.1000s", len(line), line)
		}
	}
	until(t, "a line says how many were left out", func() bool {
		g.get("/")
		receive(t, "all is logged", slipswitch.Logged(p))
		return strings.Contains(log.String(), "omitted=")
	})
}

// TestBrokenResponses: what has come of a response, however little, reaches the
// client, which can see that it is not all; and the log is told.
func TestBrokenResponses(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhello",
	} {
		for way, raw := range map[string]string{
			"HTTP/1.1": request("GET", "/a"), "refused upgrade": handshake("/a"), "HTTP/1.0": "GET /a HTTP/1.0\r\nHost: " + host + "\r\n\r\n",
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				var log logBuffer
				u := startScript(t, func(u *upstream, p *peer) bool {
					p.request()
					io.WriteString(p.TCPConn, reply)
					return false
				})
				p := &slipswitch.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil))}
				g := startGateway(t, p, route("/", u))
				client := g.dial()
				client.send(raw)
				client.SetReadDeadline(time.Now().Add(wait))
				r, err := http.ReadResponse(client.r, nil)
				if err != nil && name == "chunked" && errors.Is(err, syscall.ECONNRESET) {
					return // unmistakable, too
				}
				if err != nil {
					t.Fatalf("no response: %v", err)
				}
				if body, err := io.ReadAll(r.Body); r.StatusCode != 200 || string(body) != "hello" && name == "length" || err == nil {
					t.Errorf("got %s %q, %v; want hello and an error", r.Status, body, err)
				}
				until(t, "the log tells of it", func() bool {
					got := log.String()
					return strings.Contains(got, "broken off") && strings.Contains(got, "path=/a") && strings.Contains(got, "within its response")
				})
			})
		}
	}
}
