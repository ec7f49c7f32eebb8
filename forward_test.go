package slipswitch_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestStreamsFlushAtOnce: each part of a response whose length is not known
// reaches the client before the next exists.
func TestStreamsFlushAtOnce(t *testing.T) {
	for name, head := range map[string]string{
		"events":  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 16\r\n\r\n",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"to EOF":  "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan string)
			u := startScript(t, func(u *upstream, p *peer) bool {
				p.head()
				io.WriteString(p.TCPConn, head)
				for part := range next {
					if name == "chunked" {
						part = fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
					}
					io.WriteString(p.TCPConn, part)
				}
				if name == "chunked" {
					io.WriteString(p.TCPConn, "0\r\n\r\n")
				}
				return false
			})
			g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
			client := g.dial()
			client.send(request("GET", "/events"))
			client.SetReadDeadline(time.Now().Add(wait))
			r, err := http.ReadResponse(client.r, nil) // the header comes before any part
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{"data: 1\n", "data: 2\n"} {
				next <- part
				got := make([]byte, len(part))
				if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != part {
					t.Errorf("got %q, %v; want %q", got, err, part)
				}
			}
			close(next)
			if rest, err := io.ReadAll(r.Body); len(rest) > 0 || err != nil {
				t.Errorf("got %q, %v; want EOF", rest, err)
			}
		})
	}
}

// TestInterimResponses reach the client, and take nothing from the final one.
func TestInterimResponses(t *testing.T) {
	hint := "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nConnection: X-Drop\r\nX-Drop: 1\r\nKeep-Alive: x\r\n\r\n"
	u := answering(t, hint+hint+ok("abc", "Set-Cookie: upstream=1"))
	g := startGateway(t, &slipswitch.Proxy{Middleware: setCookie}, route("/", u), slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	client := g.dial()
	client.send(request("GET", "/", "Connection: close"))
	got, err := client.rest()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(got, "\r\n\r\n")
	if len(parts) != 4 || parts[3] != "abc" {
		t.Fatalf("got %q", parts)
	}
	for _, part := range parts[:2] {
		if !strings.HasPrefix(part, "HTTP/1.1 103 ") || !strings.Contains(part, "Link: </style.css>") ||
			strings.Contains(part, "X-Drop") || strings.Contains(part, "Keep-Alive") || strings.Contains(part, "Connection") {
			t.Errorf("got %q", part)
		}
	}
	final, err := http.ReadResponse(bufio.NewReader(strings.NewReader(parts[2]+"\r\n\r\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookies := final.Header["Set-Cookie"]; final.StatusCode != 200 || !slices.Equal(cookies, []string{"session=1", "upstream=1"}) ||
		!slices.Equal(final.Header["X-Frame-Options"], []string{"DENY"}) || final.Header["Link"] != nil || !final.Close {
		t.Errorf("got %q", parts[2])
	}
}

// TestNoInterimResponsesToHTTP10: its clients would take one for the final
// response (RFC 9110 §15.2).
func TestNoInterimResponsesToHTTP10(t *testing.T) {
	t.Parallel()
	u := startUpstream(t, func(r received) string {
		return "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" + ok("abc")
	})
	g := startGateway(t, &slipswitch.Proxy{Middleware: setCookie}, route("/", u))
	for _, head := range []string{"GET / HTTP/1.0\r\n\r\n", "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"} {
		client := g.dial()
		client.send(strings.Replace(head, "\r\n", "\r\nHost: "+host+"\r\n", 1))
		got, err := client.rest()
		if err != nil || !strings.HasPrefix(got, "HTTP/1.0 200 OK\r\n") || strings.Count(got, "HTTP/") != 1 ||
			!strings.HasSuffix(got, "abc") || strings.Contains(got, "Link") || !strings.Contains(got, "session=1") {
			t.Errorf("got %q, %v; want one response", got, err)
		}
	}
}

// TestExpectContinue: the client is told to go on, once, also by an upstream
// that sends interim responses of its own at the same time.
func TestExpectContinue(t *testing.T) {
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 5))
		body := make([]byte, 3)
		io.ReadFull(p, body)
		io.WriteString(p.TCPConn, ok(string(body), "Connection: close"))
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	for range 20 {
		client := g.dial()
		client.send(request("POST", "/", "Content-Length: 3", "Expect: 100-continue"))
		client.expect("HTTP/1.1 100 Continue\r\n\r\n")
		client.send("abc")
		if a := client.answer("POST"); a.StatusCode != 200 || a.body != "abc" {
			t.Errorf("got %s %q", a.Status, a.body)
		}
		client.Close()
	}
}

// TestInterimWhileBodyIsAwaited: the server tells a client to go on by itself,
// from another goroutine than the one that passes interim responses.
func TestInterimWhileBodyIsAwaited(t *testing.T) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	g := startGateway(t, &slipswitch.Proxy{DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil }},
		slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://10.0.0.1:1")})
	go func() {
		for head := ""; !strings.HasSuffix(head, "\r\n\r\n"); { // the body has to wait
			buf := make([]byte, 1000)
			n, err := far.Read(buf)
			if head += string(buf[:n]); err != nil {
				return
			}
		}
		whole := make(chan struct{})
		for i := range 200 {
			if i == 100 {
				go func() {
					defer close(whole)
					for sent := ""; !strings.HasSuffix(sent, "abc"); {
						buf := make([]byte, 1000)
						n, err := far.Read(buf)
						if sent += string(buf[:n]); err != nil {
							return
						}
					}
				}()
			}
			io.WriteString(far, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
		}
		<-whole
		io.WriteString(far, ok("done", "Connection: close"))
	}()
	client := g.dial()
	client.send(request("POST", "/", "Content-Length: 3", "Expect: 100-continue"))
	client.expect("HTTP/1.1 100 Continue\r\n\r\n")
	client.send("abc")
	if a := client.answer("POST"); a.StatusCode != 200 || a.body != "done" {
		t.Errorf("got %s %q", a.Status, a.body)
	}
}

// TestUploadKeepsMemoryFlat sends 1 GiB through the gateway. Client and
// upstream live in the same process and hold one buffer each.
func TestUploadKeepsMemoryFlat(t *testing.T) {
	const size, part = 1 << 30, 64 << 20
	var live, resident []int64
	measure := func() {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		live, resident = append(live, int64(m.HeapAlloc+m.StackInuse)), append(resident, residentSize())
	}
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		p.SetReadDeadline(time.Now().Add(4 * wait))
		buf := make([]byte, 64<<10)
		for n := 0; n < size; {
			k, err := p.Read(buf[:min(len(buf), size-n)])
			if err != nil {
				t.Errorf("after %d bytes: %v", n, err)
				return false
			}
			if n/part != (n+k)/part {
				measure()
			}
			n += k
		}
		io.WriteString(p.TCPConn, ok("done"))
		return false
	})
	r := route("/", u)
	r.MaxBody = size
	g := startGateway(t, &slipswitch.Proxy{}, r)
	client := g.dial()
	client.r = bufio.NewReaderSize(client.TCPConn, 16)
	client.send(request("PUT", "/", "Content-Length: "+strconv.Itoa(size)))
	buf := make([]byte, 64<<10)
	client.SetWriteDeadline(time.Now().Add(4 * wait))
	for n := 0; n < size; n += len(buf) {
		if _, err := client.Write(buf); err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if a := client.answer("PUT"); a.body != "done" {
		t.Errorf("got %s", a.Status)
	}
	for name, sizes := range map[string][]int64{"live memory": live, "resident memory": resident} {
		// What the first quarter has needed is enough for the rest.
		quarter := slices.Max(sizes[:len(sizes)/4])
		grown := slices.Max(sizes) - quarter
		t.Logf("%s: from %d KiB by at most %d KiB", name, quarter>>10, grown>>10)
		if raceEnabled && name == "resident memory" {
			continue // the detector's own, which depends on what has run before
		}
		if grown > 1<<20 {
			t.Errorf("%s has grown by %d KiB; want at most 1024", name, grown>>10)
		}
	}
}

// residentSize returns the resident memory of this process in bytes, or 0
// where that is not known.
func residentSize() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int64
	fmt.Sscan(string(statm), &size, &pages)
	return pages * int64(os.Getpagesize())
}

// TestBodyLimit is the same for bodies of known and unknown length.
func TestBodyLimit(t *testing.T) {
	u := startUpstream(t, func(r received) string { return ok(r.body) })
	r := route("/", u)
	r.MaxBody = 1000
	g := startGateway(t, &slipswitch.Proxy{}, r)
	chunked := func(n int) string {
		return request("POST", "/", "Transfer-Encoding: chunked") + strings.Repeat("64\r\n"+strings.Repeat("x", 100)+"\r\n", n/100) + "0\r\n\r\n"
	}
	sized := func(n int) string {
		return request("POST", "/", "Content-Length: "+strconv.Itoa(n)) + strings.Repeat("x", n)
	}
	for _, raw := range []string{sized(0), sized(1000), chunked(0), chunked(1000), request("GET", "/")} {
		if a := g.do(raw); a.StatusCode != 200 || len(u.only().body) != len(a.body) {
			t.Errorf("%.80q…: got %s", raw, a.Status)
		}
	}
	for _, raw := range []string{
		sized(1001), sized(1 << 20), chunked(1100), chunked(1 << 20),
		request("POST", "/", "Content-Length: 5000000000", "Expect: 100-continue"),
	} {
		for range 5 {
			client := g.dial()
			go io.WriteString(client.TCPConn, raw)
			if a := client.answer("POST"); a.StatusCode != 413 || !a.Close && a.ContentLength > 1000 {
				t.Errorf("%.80q…: got %s", raw, a.Status)
			}
			client.Close()
		}
	}
	for _, r := range u.all() {
		if r.err == nil {
			t.Errorf("the upstream received a whole body of %d bytes", len(r.body))
		}
	}
}

// TestNextUpstream: a request that could not connect goes to the next, with
// its body as it was.
func TestNextUpstream(t *testing.T) {
	u := startUpstream(t, func(r received) string {
		if r.Header.Get("Upgrade") != "" {
			return switching()
		}
		return ok(r.body, "Connection: close")
	})
	r := route("/", u)
	for range 3 {
		r.Upstreams = append(r.Upstreams, slipswitch.Upstream{URL: refusing(t)})
	}
	g := startGateway(t, &slipswitch.Proxy{}, r)
	body := strings.Repeat("0123456789", 10_000)
	for range 10 {
		for _, raw := range []string{
			request("POST", "/a", "Content-Length: 100000") + body,
			request("POST", "/a", "Transfer-Encoding: chunked") + "186a0\r\n" + body + "\r\n0\r\n\r\n",
			request("POST", "/a", "Content-Length: 100000", "Expect: 100-continue") + body,
			request("GET", "/a"),
			handshake("/a"),
		} {
			a := g.do(raw)
			if a.StatusCode != 200 && a.StatusCode != 101 {
				t.Fatalf("%.40q: got %s", raw, a.Status)
			}
			if got := u.only(); got.err != nil || strings.HasPrefix(raw, "POST") && got.body != body {
				t.Errorf("%.40q: the upstream got %d bytes, %v", raw, len(got.body), got.err)
			}
		}
	}
}

// TestHTTP2Client: trailers and full duplex, which gRPC needs.
func TestHTTP2Client(t *testing.T) {
	u := startUpstream(t, func(r received) string {
		return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n" +
			fmt.Sprintf("%x\r\n%s\r\n0\r\nGrpc-Status: 0\r\n\r\n", len(r.body), r.body)
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	q, _ := http.NewRequest("POST", "http://"+g.addr+"/a", io.LimitReader(strings.NewReader("abc"), 3))
	q.Host, q.Trailer = host, http.Header{"X-Sum": {"1"}, "X-Forwarded-For": {"evil"}}
	q.Header.Set("Te", "trailers")
	response, err := http2Client(t).RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if string(body) != "abc" || err != nil || response.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("got %q, %v, trailers %v", body, err, response.Trailer)
	}
	if got := u.only(); got.Trailer.Get("X-Sum") != "1" || len(got.Trailer) != 1 || got.Header.Get("Te") != "trailers" || got.Host != host {
		t.Errorf("the upstream received %q, trailers %v", got.head, got.Trailer)
	}
}

// TestTLSProfiles: each has its own authorities, and connections of its own.
func TestTLSProfiles(t *testing.T) {
	u := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				io.WriteString(conn, switching()+"\x81\x02hi")
				conn.Close()
			}
			return
		}
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.TLS.ServerName, r.RemoteAddr)
	}))
	u.Config.ErrorLog = log.New(io.Discard, "", 0)
	u.EnableHTTP2 = true
	u.StartTLS()
	t.Cleanup(u.Close)
	authorities := x509.NewCertPool()
	authorities.AddCert(u.Certificate())
	config := &tls.Config{RootCAs: authorities, ServerName: "example.com"}
	p := &slipswitch.Proxy{TLSProfiles: map[string]*tls.Config{"a": config, "b": config, "other": {RootCAs: x509.NewCertPool()}, "nil": nil}}
	g := startGateway(t, p)
	for _, name := range []string{"", "a", "b", "other", "nil", "unknown"} {
		g.put(slipswitch.Route{Path: "/" + name, TLSProfile: name, Upstreams: slipswitch.To(u.URL)})
	}
	connections := map[string]string{}
	for range 3 {
		for _, name := range []string{"a", "b"} {
			a := g.get("/" + name)
			proto, rest, _ := strings.Cut(a.body, " ")
			server, remote, _ := strings.Cut(rest, " ")
			if a.StatusCode != 200 || server != "example.com" || proto != "HTTP/2.0" {
				t.Errorf("%s: got %s %q", name, a.Status, a.body)
			}
			if before, ok := connections[name]; ok && before != remote {
				t.Errorf("%s: a new connection each time", name)
			}
			connections[name] = remote
		}
	}
	if connections["a"] == connections["b"] {
		t.Error("two profiles share a connection")
	}
	client := g.dial()
	client.send(handshake("/a"))
	if a := client.answer("GET"); a.StatusCode != 101 {
		t.Errorf("upgrade: got %s %s", a.Status, a.body)
	}
	client.expect("\x81\x02hi")
	client.Close()
	for _, name := range []string{"", "other", "nil", "unknown"} {
		for _, raw := range []string{request("GET", "/"+name), handshake("/" + name)} {
			if a := g.do(raw); a.StatusCode != 502 {
				t.Errorf("profile %q: got %s; want 502", name, a.Status)
			}
		}
	}
}

// TestUpstreamHost is what a route sets, or else the client's.
func TestUpstreamHost(t *testing.T) {
	set := func(r *slipswitch.Route) { r.UpstreamHost = "internal:8080" }
	eachWay(t, func() *slipswitch.Proxy { return &slipswitch.Proxy{} }, set, func(t *testing.T, send func(...string) received) {
		if got := send(); got.Host != "internal:8080" || got.Header.Get("X-Forwarded-Host") != host || strings.Count(got.head, "\r\nHost:") != 1 {
			t.Errorf("got %q", got.head)
		}
	})
}

// TestPlainResponses without a body, or to HTTP/1.0.
func TestPlainResponses(t *testing.T) {
	u := startUpstream(t, func(r received) string { return "HTTP/1.1 " + strings.ReplaceAll(r.URL.Query().Get("r"), "|", "\r\n") })
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	for reply, want := range map[string]string{
		"204+No+Content||": "204 ",
		"304+Not+Modified|Content-Length:+100|Etag:+\"x\"||": "304 ",
		"200+OK|Content-Length:+0||":                         "200 ",
		"200+OK|Transfer-Encoding:+chunked||0||":             "200 ",
		"999+Odd|Content-Length:+3||abc":                     "999 abc",
		"200+OK|Content-Length:+3|Content-Length:+3||abc":    "502 502 Bad Gateway: the upstream's answer is invalid\n",
	} {
		client.send(request("GET", "/?r="+reply))
		a := client.answer("GET")
		if got := fmt.Sprintf("%d %s", a.StatusCode, a.body); got != want || a.Close {
			t.Errorf("%s: got %s, close %v; want %s", reply, got, a.Close, want)
		}
	}
	client = g.dial()
	client.send("GET /?r=200+OK|Transfer-Encoding:+chunked||3|abc|0|| HTTP/1.0\r\nHost: " + host + "\r\n\r\n")
	got, err := client.rest()
	if err != nil || !strings.HasPrefix(got, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\nabc") || strings.Contains(got, "chunked") {
		t.Errorf("HTTP/1.0: got %q, %v", got, err)
	}
}

// TestBatchesAreSeenWhole: a request finds one of two routes, which batches
// exchange for each other, at any time.
func TestBatchesAreSeenWhole(t *testing.T) {
	one, two := answering(t, ok("one")), answering(t, ok("two"))
	g := startGateway(t, &slipswitch.Proxy{}, route("/x", one))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			g.Router.Update(func(tx *slipswitch.Txn) error {
				for _, path := range []string{"/x", "/x/y"} {
					tx.Delete(slipswitch.Key{Host: host, Path: path})
				}
				r := route([]string{"/x/y", "/x"}[i%2], []*upstream{two, one}[i%2])
				r.Host = host
				tx.Put(r)
				return nil
			})
		}
	}()
	client := g.dial()
	seen := map[string]int{}
	for range 500 {
		client.send(request("GET", "/x/y"))
		a := client.answer("GET")
		if a.StatusCode != 200 {
			t.Fatalf("got %s: half of a batch", a.Status)
		}
		seen[a.body]++
	}
	close(stop)
	<-stopped
	if seen["one"] == 0 || seen["two"] == 0 {
		t.Errorf("got %v", seen)
	}
}

// TestStaleConnection: what may be repeated is, if the upstream has closed the
// connection that it would have gone by (RFC 9110 §9.2.2).
func TestStaleConnection(t *testing.T) {
	for name, test := range map[string]struct {
		raw    string
		status int
	}{
		"GET":              {request("GET", "/"), 200},
		"HEAD":             {request("HEAD", "/"), 200},
		"OPTIONS":          {request("OPTIONS", "/"), 200},
		"DELETE":           {request("DELETE", "/"), 200},
		"PUT":              {request("PUT", "/", "Content-Length: 0"), 200},
		"PUT, by its key":  {request("PUT", "/", "Content-Length: 0", "Idempotency-Key: 1"), 200},
		"POST":             {request("POST", "/", "Content-Length: 0"), 502},
		"PATCH":            {request("PATCH", "/", "Content-Length: 0"), 502},
		"PUT with a body":  {request("PUT", "/", "Content-Length: 5") + "hello", 502},
		"POST, by its key": {request("POST", "/", "Content-Length: 0", "Idempotency-Key: 1"), 200},
		"PUT in chunks":    {request("PUT", "/", "Transfer-Encoding: chunked") + "0\r\n\r\n", 502},
	} {
		u := startScript(t, func(u *upstream, p *peer) bool {
			for n := range 2 {
				r, err := p.request()
				if err != nil || n == 1 {
					break // and closes
				}
				u.keep(r)
				io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			return false
		})
		g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
		if a := g.get("/"); a.StatusCode != 200 {
			t.Fatalf("got %s", a.Status)
		}
		if a := g.do(test.raw); a.StatusCode != test.status {
			t.Errorf("%s: got %s; want %d", name, a.Status, test.status)
		}
		for _, r := range u.all() {
			if strings.Contains(strings.ToLower(r.head), "idempotency-key") != strings.Contains(test.raw, "Idempotency-Key") && r.Method != "GET" {
				t.Errorf("%s: the upstream received %q", name, r.head)
			}
		}
	}
}
