package slipswitch_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestEarlyResponse: an upstream may answer while it is still reading. Nothing
// of what it reads is lost for that.
func TestEarlyResponse(t *testing.T) {
	const size = 1 << 20
	got := make(chan int, 1)
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
		n := 0
		for body := newChunkedReader(p); ; {
			buf := make([]byte, 4096)
			k, err := body.Read(buf)
			if strings.Trim(string(buf[:k]), "x") != "" {
				break
			}
			if n += k; err != nil {
				break
			}
		}
		got <- n
		io.WriteString(p.TCPConn, "4\r\nlast\r\n0\r\n\r\n")
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	client.send(request("POST", "/", "Transfer-Encoding: chunked") + "1\r\nx\r\n")
	client.SetReadDeadline(time.Now().Add(wait))
	r, err := http.ReadResponse(client.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(r.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("got %q, %v", first, err)
	}
	part := strings.Repeat("x", 1<<10)
	for range size / len(part) {
		client.send(fmt.Sprintf("%x\r\n%s\r\n", len(part), part))
	}
	client.send("0\r\n\r\n")
	if rest, err := io.ReadAll(r.Body); string(rest) != "last" || err != nil {
		t.Errorf("got %q, %v", rest, err)
	}
	if n := receive(t, "the upstream has read the body", got); n != size+1 {
		t.Errorf("the upstream got %d bytes; want %d", n, size+1)
	}
}

// newChunkedReader reads a chunked body whose head has been read.
func newChunkedReader(p *peer) io.Reader {
	r, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), onlyReader{p.r})), nil)
	if err != nil {
		p.t.Error(err)
	}
	return r.Body
}

// TestEarlyRefusal: what is left of a body is never read as a request.
func TestEarlyRefusal(t *testing.T) {
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin")
		p.rest()
		return false
	})
	smuggled := request("GET", "/smuggled")
	sized := request("POST", "%s", "Content-Length: "+strconv.Itoa(len("begin")+len(smuggled))) + "begin"
	chunked := request("POST", "%s", "Transfer-Encoding: chunked", "Trailer: X-Sum") + "5\r\nbegin\r\n"
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u), slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	for target, status := range map[string]int{"/": 401, "/dead": 502} {
		for begin, rest := range map[string]string{
			sized:   smuggled + smuggled, // the rest of the body, and more
			chunked: "0\r\nX-Sum: 1\r\n\r\n" + smuggled,
		} {
			for range 10 {
				client := g.dial()
				client.send(fmt.Sprintf(begin, target))
				a := client.answer("POST")
				if a.StatusCode != status || !a.Close {
					t.Errorf("%s: got %s, close %v; want %d, closed", target, a.Status, a.Close, status)
				}
				io.WriteString(client.TCPConn, rest)
				if got, _ := client.rest(); got != "" {
					t.Errorf("%s: behind the refusal came %q", target, got)
				}
				client.Close()
			}
		}
	}
}

// TestEarlyAnswerLetsClientFinish: a client that was answered while it was
// sending must not be reset before it has read the answer.
func TestEarlyAnswerLetsClientFinish(t *testing.T) {
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin")
		p.rest()
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	client.send(request("POST", "/", "Content-Length: 50000"))
	if _, err := client.r.Peek(1); err != nil { // answered
		t.Fatal(err)
	}
	for range 50 {
		client.send(strings.Repeat("x", 1000))
		awaitSent(t, client)
	}
	if a := client.answer("POST"); a.StatusCode != 401 || a.body != "login" || a.err != nil {
		t.Errorf("got %s %q, %v", a.Status, a.body, a.err)
	}
	client.expectEOF()
}

// TestResponseInParts: what has come of a response of known length does not wait
// for the rest.
func TestResponseInParts(t *testing.T) {
	t.Parallel()
	for way, raw := range map[string]string{"plain": request("GET", "/"), "refused upgrade": handshake("/")} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			next := make(chan string)
			u := startScript(t, func(u *upstream, p *peer) bool {
				p.head()
				for part := range next {
					io.WriteString(p.TCPConn, part)
				}
				return false
			})
			g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
			t.Cleanup(func() { close(next) })
			client := g.dial()
			client.send(raw)
			next <- "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
			client.SetReadDeadline(time.Now().Add(wait))
			r, err := http.ReadResponse(client.r, nil) // before any of the body is sent
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{"01", "234", "56789"} {
				next <- part
				got := make([]byte, len(part))
				if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != part {
					t.Errorf("got %q, %v; want %q", got, err, part)
				}
			}
		})
	}
}

// TestNobodyReadsBehindHandler: a body is the server's again when the handler
// has returned.
func TestNobodyReadsBehindHandler(t *testing.T) {
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin")
		p.rest()
		return false
	})
	p := &slipswitch.Proxy{}
	returned := make(chan int64)
	g := startHandler(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &watchedBody{ReadCloser: r.Body}
		r.Body = body
		p.ServeHTTP(w, r)
		returned <- body.reading.Load()
	}), route("/", u))
	client := g.dial()
	client.send(request("POST", "/", "Content-Length: 100") + "begin")
	if a := client.answer("POST"); a.StatusCode != 401 || a.body != "login" {
		t.Errorf("got %s %q", a.Status, a.body)
	}
	client.Close()
	if n := receive(t, "ServeHTTP returns", returned); n != 0 {
		t.Errorf("%d reads are under way", n)
	}
}

type watchedBody struct {
	io.ReadCloser
	reading atomic.Int64
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.reading.Add(1)
	defer b.reading.Add(-1)
	return b.ReadCloser.Read(p)
}

// refusing returns the URL of an address that refuses connections.
func refusing(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The other end of a connection keeps the port, which nobody listens on.
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	t.Cleanup(func() { conn.Close(); accepted.Close() })
	return "http://" + listener.Addr().String()
}
