package slipswitch_test

import (
	"io"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// TestChunkedHTTP10 is 502: a server of HTTP/1.0 has no chunks, and whoever reads its
// body otherwise takes a part of it for the next response.
func TestChunkedHTTP10(t *testing.T) {
	u := answering(t, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	if a := g.get("/"); a.StatusCode != 502 {
		t.Errorf("got %s %q; want 502", a.Status, a.body)
	}
}

// TestNamedFieldsAreDropped: what an upstream's Connection names is for the gateway
// alone (RFC 9110 §7.6.1), also beside close, in interim responses and in trailers.
func TestNamedFieldsAreDropped(t *testing.T) {
	u := answering(t, "HTTP/1.1 103 Early Hints\r\nConnection: close, X-Internal\r\nX-Internal: hint\r\nLink: </a>\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nConnection: close, X-Internal\r\nX-Internal: header\r\nX-Public: yes\r\n"+
		"Transfer-Encoding: chunked\r\nTrailer: X-Internal, X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Internal: trailer\r\nX-Sum: 1\r\n\r\n")
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	client.send(request("GET", "/", "Connection: close"))
	raw, err := io.ReadAll(client)
	got := string(raw)
	if err != nil || strings.Contains(strings.ToLower(got), "internal") {
		t.Errorf("got %q, %v; want no X-Internal", got, err)
	}
	for _, want := range []string{"103 Early Hints", "Link: </a>", "X-Public: yes", "X-Sum: 1"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q; want %s", got, want)
		}
	}
}

// TestLazyBody: a client that waits for a 100 is not asked for its body before the
// upstream asks for it.
func TestLazyBody(t *testing.T) {
	u := startScript(t, func(u *upstream, p *peer) bool {
		head, err := p.head()
		if err != nil {
			return false
		}
		if strings.Contains(head, "/refused") {
			io.WriteString(p.TCPConn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin")
			p.rest()
			return false
		}
		io.WriteString(p.TCPConn, "HTTP/1.1 100 Continue\r\n\r\n")
		body := make([]byte, 3)
		io.ReadFull(p, body)
		io.WriteString(p.TCPConn, ok(string(body), "Connection: close"))
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	client.send(request("POST", "/refused", "Content-Length: 3", "Expect: 100-continue"))
	if a := client.answer("POST"); a.StatusCode != 401 || a.body != "login" || !a.Close {
		t.Errorf("got %s %q; want 401, closed, without a 100", a.Status, a.body)
	}
	client = g.dial()
	client.send(request("POST", "/", "Content-Length: 3", "Expect: 100-continue"))
	client.expect("HTTP/1.1 100 Continue\r\n\r\n")
	client.send("abc")
	if a := client.answer("POST"); a.StatusCode != 200 || a.body != "abc" {
		t.Errorf("got %s %q", a.Status, a.body)
	}
}
