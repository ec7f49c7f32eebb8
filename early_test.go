package slipswitch_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// refusals returns a gateway that answers early in many ways, and the status of
// each by its target.
func refusals(t *testing.T) (*gateway, map[string]int) {
	u := startScript(t, func(u *upstream, p *peer) bool {
		head, _ := p.head()
		switch {
		case strings.Contains(head, "/chunked"):
			io.WriteString(p.TCPConn, "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nlogin\r\n0\r\nX-Sum: 1\r\n\r\n")
		default:
			io.WriteString(p.TCPConn, "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlogin")
		}
		p.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, p)
		return false
	})
	limited := route("/limited", answering(t, ok("")))
	limited.MaxBody = 1000
	p := &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/app/login" {
				http.Error(w, "login", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}
	g := startGateway(t, p, route("/app", u), limited, slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	return g, map[string]int{"/limited": 413, "/none": 404, "/app/%00": 400, "/app/login": 401, "/dead": 502, "/app/sized": 401, "/app/chunked": 401}
}

// TestRefusedUpload: a client that sends all before it reads gets the answer,
// however much that was (RFC 9112 §9.6).
func TestRefusedUpload(t *testing.T) {
	t.Parallel()
	g, statuses := refusals(t)
	const size = 4 << 20
	for target, status := range statuses {
		for name, lines := range map[string][]string{
			"HTTP/1.1": {"HTTP/1.1"}, "close": {"HTTP/1.1", "Connection: close"},
			"HTTP/1.0": {"HTTP/1.0"}, "HTTP/1.0 keep-alive": {"HTTP/1.0", "Connection: keep-alive"},
			"chunked": {"HTTP/1.1", "Transfer-Encoding: chunked"},
		} {
			t.Run(target+" "+name, func(t *testing.T) {
				t.Parallel()
				client := g.dial()
				head := "POST " + target + " " + strings.Join(lines, "\r\n") + "\r\nHost: " + host + "\r\n"
				body := strings.Repeat("x", size)
				if name == "chunked" {
					body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", size, body)
				} else {
					head += "Content-Length: " + strconv.Itoa(size) + "\r\n"
				}
				client.SetWriteDeadline(time.Now().Add(wait))
				if n, err := io.WriteString(client.TCPConn, head+"\r\n"+body); err != nil {
					t.Fatalf("after %d bytes: %v", n, err)
				}
				a := client.answer("POST")
				if a.StatusCode != status || a.err != nil || a.body == "" {
					t.Errorf("got %s %q, %v; want %d", a.Status, a.body, a.err, status)
				}
				if target == "/app/chunked" && a.ProtoAtLeast(1, 1) && a.Trailer.Get("X-Sum") != "1" {
					t.Errorf("got trailers %v", a.Trailer)
				}
				if a.Close { // else the upload was faster than the answer
					client.expectEOF()
				}
			})
		}
	}
}

// TestRefusedUploadEnds: the answer is whole, and the stream has ended, before
// the client has sent the rest; and it need not send it.
func TestRefusedUploadEnds(t *testing.T) {
	t.Parallel()
	g, statuses := refusals(t)
	for target, status := range statuses {
		for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
			t.Run(target+" "+version, func(t *testing.T) {
				t.Parallel()
				client := g.dial()
				client.send("POST " + target + " " + version + "\r\nHost: " + host + "\r\nContent-Length: 1000000\r\n\r\nbegin")
				if a := client.answer("POST"); a.StatusCode != status || a.err != nil || a.body == "" || !a.Close {
					t.Errorf("got %s %q, %v, close %v; want %d", a.Status, a.body, a.err, a.Close, status)
				}
				client.expectEOF()
				client.send(request("GET", "/app/sized")) // which is a part of the body
				client.CloseWrite()
				client.expectEOF()
			})
		}
	}
}

// TestRefusedUploadIsBounded: who goes on sending for ever is cut.
func TestRefusedUploadIsBounded(t *testing.T) {
	t.Parallel()
	g, _ := refusals(t)
	client := g.dial()
	client.send(request("POST", "/none", "Content-Length: 100000000000"))
	if a := client.answer("POST"); a.StatusCode != 404 {
		t.Errorf("got %s", a.Status)
	}
	client.SetWriteDeadline(time.Now().Add(wait))
	part := make([]byte, 1<<20)
	for sent := 0; ; sent += len(part) {
		if _, err := client.Write(part); err != nil {
			if sent < 100<<20 {
				t.Errorf("cut after %d MiB: %v", sent>>20, err)
			}
			return
		}
		if sent > 1<<30 {
			t.Fatal("never cut")
		}
	}
}

// TestRefusedUploadsAreBounded: of clients that never stop sending only so many
// are listened to, and the others' connections are closed at once.
func TestRefusedUploadsAreBounded(t *testing.T) {
	t.Parallel()
	p := new(slipswitch.Proxy)
	g := startGateway(t, p)
	const most = 2
	slipswitch.LimitDropping(p, most)
	refused := func() *peer {
		client := g.dial()
		client.send(request("POST", "/none", "Content-Length: 1000000000"))
		if a := client.answer("POST"); a.StatusCode != 404 || a.err != nil {
			t.Errorf("got %s, %v; want 404", a.Status, a.err)
		}
		client.expectEOF()
		return client
	}
	sends := func(client *peer) bool {
		client.SetWriteDeadline(time.Now().Add(wait))
		for range 100 {
			if _, err := client.Write(make([]byte, 64<<10)); err != nil {
				return false
			}
		}
		return true
	}
	var polite []*peer
	for range most {
		polite = append(polite, refused())
	}
	if sends(refused()) || p.LimitsHit()["dropping"] != 1 {
		t.Errorf("one more may send on; limits hit: %v", p.LimitsHit())
	}
	for _, client := range polite {
		if !sends(client) {
			t.Error("one of the first may not send on")
		}
		client.Close()
	}
	until(t, "there is room again", func() bool { return sends(refused()) })
}

// TestRefusedUploadOverTLS ends with a close_notify, then the same.
func TestRefusedUploadOverTLS(t *testing.T) {
	t.Parallel()
	p := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	server := httptest.NewTLSServer(p)
	t.Cleanup(server.Close)
	pool := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	conn, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(conn, request("POST", "/", "Content-Length: 4000000")+strings.Repeat("x", 4_000_000)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(response.Body); response.StatusCode != 404 || err != nil || len(body) == 0 {
		t.Errorf("got %s %q, %v", response.Status, body, err)
	}
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("got %q, %v; want EOF", rest, err)
	}
}

// TestShortRefusedBody: a body that has come with its head is read, and the
// connection goes on.
func TestShortRefusedBody(t *testing.T) {
	t.Parallel()
	g, statuses := refusals(t)
	for target, status := range statuses {
		if strings.HasPrefix(target, "/app/") && target != "/app/login" || target == "/limited" {
			continue // of the upstream; or of more than may be
		}
		client := g.dial()
		for range 3 {
			client.send(request("POST", target, "Content-Length: 100000") + strings.Repeat("x", 100_000))
			if a := client.answer("POST"); a.StatusCode != status || a.Close || a.err != nil {
				t.Errorf("%s: got %s, %v, close %v; want %d and a connection that goes on", target, a.Status, a.err, a.Close, status)
				break
			}
		}
	}
}

// TestRefusedUpgradeWithEarlyFrames: what a client has sent for the tunnel does
// not take the refusal back.
func TestRefusedUpgradeWithEarlyFrames(t *testing.T) {
	t.Parallel()
	u := startScript(t, func(u *upstream, p *peer) bool {
		head, _ := p.head()
		if strings.Contains(head, "/chunked") {
			io.WriteString(p.TCPConn, "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n")
		} else {
			io.WriteString(p.TCPConn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		}
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u), slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	frames := strings.Repeat("x", 300_000)
	for target, status := range map[string]int{"/sized": 403, "/chunked": 403, "/dead": 502, "/%00": 400} {
		for range 10 {
			client := g.dial()
			client.send(handshake(target) + frames)
			if a := client.answer("GET"); a.StatusCode != status || a.err != nil || a.body == "" || !a.Close {
				t.Errorf("%s: got %s %q, %v; want %d", target, a.Status, a.body, a.err, status)
			}
			client.expectEOF()
			client.Close()
		}
	}
}

// TestRefusedUploadInTimeoutHandler: where the connection cannot be had, the
// server ends it.
func TestRefusedUploadInTimeoutHandler(t *testing.T) {
	t.Parallel()
	p := &slipswitch.Proxy{}
	g := startHandler(t, p, http.TimeoutHandler(p, time.Minute, ""), slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://127.0.0.1:1")})
	a := g.do(request("POST", "/none", "Content-Length: 5") + "hello")
	if a.StatusCode != 404 || a.err != nil {
		t.Errorf("got %s, %v", a.Status, a.err)
	}
}
