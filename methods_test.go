package slipswitch_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// TestRefusedMethods: CONNECT and TRACE reach no upstream, and what a client
// sends behind a CONNECT is not read as its next request.
func TestRefusedMethods(t *testing.T) {
	u := answering(t, ok(""))
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	for _, raw := range []string{
		"CONNECT " + host + ":443 HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"CONNECT /a HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"CONNECT http://" + host + "/a HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"CONNECT none.example.com:443 HTTP/1.1\r\nHost: none.example.com\r\n\r\n",
	} {
		client := g.dial()
		client.send(raw + request("GET", "/smuggled"))
		a := client.answer("CONNECT")
		if a.StatusCode != 405 || a.Header.Get("Allow") == "" {
			t.Errorf("%q: got %s, Allow %q; want 405", raw, a.Status, a.Header["Allow"])
		}
		if got, _ := client.rest(); strings.Contains(got, "HTTP/1.1") {
			t.Errorf("%q: behind the refusal came %q", raw, got)
		}
	}
	if a := g.do(request("TRACE", "/a", "Cookie: secret=1")); a.StatusCode != 405 || strings.Contains(a.body, "secret") {
		t.Errorf("TRACE: got %s %q", a.Status, a.body)
	}
	u.nothing()
}

// TestConnectBodyPoisonsNoConnection: over HTTP/2 a CONNECT may have a body.
// Forwarded, it would be read as requests on a connection that others use next.
func TestConnectBodyPoisonsNoConnection(t *testing.T) {
	u := startUpstream(t, func(r received) string { return ok("answer to " + r.target()) })
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	for range 3 {
		if a := g.get("/warm"); a.body != "answer to /warm" { // a pooled connection
			t.Fatalf("got %s %q", a.Status, a.body)
		}
		body := request("GET", "/evil") + request("GET", "/evil")
		r, _ := http.NewRequestWithContext(ctx, "CONNECT", "http://"+g.addr, strings.NewReader(body))
		r.Host, r.URL = host, &url.URL{Scheme: "http", Host: g.addr}
		client := http2Client(t)
		response, err := client.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != 405 {
			t.Errorf("got %s; want 405", response.Status)
		}
		if a := g.get("/mine"); a.body != "answer to /mine" {
			t.Errorf("got %q; want my own answer", a.body)
		}
	}
	for _, r := range u.all() {
		if r.Method != "GET" || r.target() == "/evil" {
			t.Errorf("the upstream received %q", r.head)
		}
	}
}

// http2Client returns a transport that speaks HTTP/2 without TLS.
func http2Client(t testing.TB) *http.Transport {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// TestMethodsPass: all others do, with and without a body.
func TestMethodsPass(t *testing.T) {
	u := startUpstream(t, func(r received) string {
		if r.Method == "HEAD" {
			return "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nX-Method: HEAD\r\n\r\n"
		}
		return ok(r.body, "X-Method: "+r.Method)
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "get"} {
		client.send(request(method, "/a"))
		a := client.answer(method)
		if a.StatusCode != 200 || a.Header.Get("X-Method") != method || u.only().Method != method {
			t.Errorf("%s: got %s", method, a.Status)
		}
		if method == "HEAD" {
			if a.ContentLength != 1000000 {
				t.Errorf("HEAD: got Content-Length %d", a.ContentLength)
			}
			continue
		}
		client.send(request(method, "/a", "Content-Length: 3") + "abc")
		if a := client.answer(method); a.body != "abc" || u.only().body != "abc" {
			t.Errorf("%s: got %s %q", method, a.Status, a.body)
		}
		if a := g.do(request(method, "/a", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n"); a.body != "abc" || u.only().body != "abc" {
			t.Errorf("%s, chunked: got %s %q", method, a.Status, a.body)
		}
	}
	// OPTIONS * is for the gateway's server itself.
	if a := g.do(request("OPTIONS", "*")); a.StatusCode != 200 {
		t.Errorf("OPTIONS *: got %s", a.Status)
	}
	u.nothing()
}

// TestBodiesDelimitRequests: two readings of where a body ends would make a
// part of it the next user's request.
func TestBodiesDelimitRequests(t *testing.T) {
	u := startUpstream(t, func(r received) string { return ok(r.target()) })
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	smuggled := request("GET", "/evil")
	for _, test := range []struct {
		name, raw string
		status    int
	}{
		{"both lengths", request("POST", "/a", "Content-Length: 5", "Transfer-Encoding: chunked") + "0\r\n\r\n" + smuggled, 0},
		{"two lengths", request("POST", "/a", "Content-Length: 5", "Content-Length: 0") + "abcde" + smuggled, 400},
		{"list of lengths", request("POST", "/a", "Content-Length: 0, 5") + smuggled, 400},
		{"signed length", request("POST", "/a", "Content-Length: +5") + "abcde", 400},
		{"two codings", request("POST", "/a", "Transfer-Encoding: chunked", "Transfer-Encoding: identity") + "0\r\n\r\n", 0},
		{"unknown coding", request("POST", "/a", "Transfer-Encoding: xchunked") + "0\r\n\r\n", 501},
		{"space before colon", request("POST", "/a", "Transfer-Encoding : chunked") + "0\r\n\r\n", 400},
		{"vertical tab", request("POST", "/a", "Transfer-Encoding: \x0bchunked") + "0\r\n\r\n", 0},
		{"bad chunk", request("POST", "/a", "Transfer-Encoding: chunked") + "zz\r\nabc\r\n0\r\n\r\n", 0},
		{"hex prefix in a chunk size", request("POST", "/a", "Transfer-Encoding: chunked") + "0x5\r\nhello\r\n0\r\n\r\n" + smuggled, 0},
		{"line feeds in chunks", request("POST", "/a", "Transfer-Encoding: chunked") + "0\n\n" + smuggled, 0},
		{"line in a chunk's extension", request("POST", "/a", "Transfer-Encoding: chunked") + "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n" + smuggled, 0},
		{"more than the chunk", request("POST", "/a", "Transfer-Encoding: chunked") + "5\r\nhelloXX0\r\n\r\n" + smuggled, 0},
		{"length in a trailer", request("POST", "/a", "Transfer-Encoding: chunked", "Trailer: Content-Length") + "0\r\nContent-Length: 50\r\n\r\n", 400},
		{"chunks in HTTP/1.0", "POST /a HTTP/1.0\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 0},
		{"folded line", request("POST", "/a", "X: a\r\n Transfer-Encoding: chunked") + "", 0},
		{"two hosts", request("GET", "/a", "Host: evil.com"), 400},
		{"tabs in the request line", "GET\t/a\tHTTP/1.1\r\nHost: " + host + "\r\n\r\n", 400},
		{"endless chunk size", request("POST", "/a", "Transfer-Encoding: chunked") + "ffffffffffffffffff\r\n", 0},
	} {
		client := g.dial()
		client.send(test.raw)
		client.CloseWrite()
		got, _ := client.rest()
		client.Close()
		if test.status != 0 && !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", test.status)) {
			t.Errorf("%s: got %q; want %d", test.name, got, test.status)
		}
		if a := g.get("/mine"); a.body != "/mine" {
			t.Errorf("%s: the next user got %q", test.name, a.body)
		}
	}
	for _, r := range u.all() {
		if r.err == nil && (r.Header["Content-Length"] != nil && r.TransferEncoding != nil || r.Method == "POST" && r.body != "") {
			t.Errorf("the upstream received %q with body %q", r.head, r.body)
		}
	}
}

// TestAmbiguousFraming: a request that may have been framed in two ways is the
// last of its connection (RFC 9112 §6.1). What stands behind it is another
// request by one way, and a part of the body by the other.
func TestAmbiguousFraming(t *testing.T) {
	t.Parallel()
	u := startUpstream(t, func(r received) string { return ok(r.target()) })
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	old := func(lines ...string) string {
		return strings.Replace(request("POST", "/a", append(lines, "Connection: keep-alive")...), "HTTP/1.1", "HTTP/1.0", 1)
	}
	for _, raw := range []string{
		request("POST", "/a", "Content-Length: 100", "Transfer-Encoding: chunked") + "0\r\n\r\n",
		request("POST", "/a", "Transfer-Encoding: chunked", "Content-Length: 0") + "1\r\nx\r\n0\r\n\r\n",
		request("POST", "/none", "Transfer-Encoding: chunked", "Content-Length: 100", "Host: x") + "0\r\n\r\n",
		old("Transfer-Encoding: chunked"),
		old("Transfer-Encoding: chunked", "Content-Length: 3") + "abc",
	} {
		client := g.dial()
		client.send(raw + request("GET", "/evil"))
		got, _ := client.rest()
		client.Close()
		if n := strings.Count(got, "HTTP/1."); n != 1 || strings.Contains(strings.ToLower(got), "keep-alive") {
			t.Errorf("%q: got %d responses: %q; want one, and the end", raw, n, got)
		}
	}
	for _, r := range u.all() {
		if r.target() != "/a" {
			t.Errorf("the upstream received %q", r.head)
		}
	}
}
