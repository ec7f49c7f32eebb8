package slipswitch_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestBrokenAnswers: an upstream that says nothing that can be passed on.
func TestBrokenAnswers(t *testing.T) {
	for name, answer := range map[string]func(p *peer){
		"closes":          func(p *peer) {},
		"resets":          func(p *peer) { p.reset() },
		"resets mid-line": func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 20"); awaitSent(p.t, p); p.reset() },
		"resets mid-header": func(p *peer) {
			io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nX-A: b\r\nX-")
			awaitSent(p.t, p)
			p.reset()
		},
		"closes mid-header":   func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n") },
		"garbage":             func(p *peer) { io.WriteString(p.TCPConn, "\x00\x01\x02SSH-2.0\r\n\r\n") },
		"HTTP/0.9":            func(p *peer) { io.WriteString(p.TCPConn, "<html>hello</html>") },
		"HTTP/2":              func(p *peer) { io.WriteString(p.TCPConn, "HTTP/2 200\r\n\r\n") },
		"status abc":          func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 abc OK\r\n\r\n") },
		"status 20":           func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 20 OK\r\n\r\n") },
		"status 099":          func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n") },
		"status -01":          func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 -01 OK\r\nContent-Length: 0\r\n\r\n") },
		"header without name": func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\n: x\r\n\r\n") },
		"negative length":     func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n") },
		"two lengths": func(p *peer) {
			io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
		},
		"unknown coding": func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab") },
		"101 unasked":    func(p *peer) { io.WriteString(p.TCPConn, switching()+"\x81\x02hi"); p.rest() },
		"101 to h2c": func(p *peer) {
			io.WriteString(p.TCPConn, "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			p.rest()
		},
		"103 then 101": func(p *peer) { io.WriteString(p.TCPConn, "HTTP/1.1 103 X\r\n\r\n"+switching()); p.rest() },
		"endless header": func(p *peer) {
			io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(p.TCPConn, "X-Endless: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		},
		"endless line": func(p *peer) {
			io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nX-Endless: ")
			for {
				if _, err := io.WriteString(p.TCPConn, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := startScript(t, func(u *upstream, p *peer) bool {
				if r, err := p.request(); err == nil {
					u.keep(r)
					p.SetWriteDeadline(time.Now().Add(wait))
					answer(p)
				}
				return false
			})
			g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
			client := g.dial()
			for _, raw := range []string{
				request("GET", "/a", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMA"),
				request("POST", "/a", "Content-Length: 3") + "abc",
			} {
				client.send(raw)
				a := client.answer("GET")
				if a.StatusCode != 502 || a.Header.Get("Proxy-Status") == "" || a.Close || a.err != nil {
					t.Errorf("got %s %v, close %v; want 502 and a connection that goes on", a.Status, a.Header, a.Close)
				}
				noLeak(t, u, a)
			}
			for _, r := range u.all() {
				if strings.Contains(r.head, "pgrade") || strings.Contains(r.head, "HTTP2") {
					t.Errorf("the upstream received %q", r.head)
				}
			}
			if len(g.reports) > 0 {
				t.Error("a tunnel")
			}
		})
	}
}

// noLeak wants that an answer does not say where the upstream is.
func noLeak(t *testing.T, u *upstream, a answer) {
	t.Helper()
	var all bytes.Buffer
	a.Header.Write(&all)
	all.WriteString(a.body)
	address := u.listener.Addr().(*net.TCPAddr)
	for _, secret := range []string{address.IP.String(), address.String()} {
		if strings.Contains(all.String(), secret) {
			t.Errorf("the client can read %s in %q", secret, all.String())
		}
	}
}

// TestTruncatedBodies must not look complete, not even behind the recovery of a
// framework that takes the abort for an answer.
func TestTruncatedBodies(t *testing.T) {
	for name, reply := range map[string]string{
		"length":         "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
		"long":           "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 500_000),
		"chunked":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"within a chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhello",
		"bad chunk":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n0\r\n\r\n",
		"bad trailer":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX",
		"reset":          "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := startScript(t, func(u *upstream, p *peer) bool {
				p.request()
				if reply == "" {
					io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
					awaitSent(t, p)
					p.reset()
				}
				io.WriteString(p.TCPConn, reply)
				return false
			})
			outermost, recovered := &slipswitch.Proxy{}, &slipswitch.Proxy{}
			for _, g := range []*gateway{
				startGateway(t, outermost, route("/", u)),
				startHandler(t, recovered, swallowing(recovered), route("/", u)),
			} {
				g.wantTruncated()
			}
		})
	}
}

// swallowing is a handler that recovers from each panic of another, as if that
// had answered.
func swallowing(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { recover() }()
		handler.ServeHTTP(unwrapper{w}, r)
	})
}

// wantTruncated wants no answer that looks whole.
func (g *gateway) wantTruncated() {
	g.t.Helper()
	for _, raw := range []string{request("GET", "/a"), handshake("/a"), "GET /a HTTP/1.0\r\nHost: " + host + "\r\n\r\n"} {
		client := g.dial()
		client.send(raw)
		r, err := http.ReadResponse(client.r, nil)
		if err != nil {
			continue // not even a header
		}
		if body, err := io.ReadAll(r.Body); err == nil && r.ProtoAtLeast(1, 1) && !strings.Contains(raw, "HTTP/1.0") {
			g.t.Errorf("%.20q: got a complete body of %d bytes", raw, len(body))
		}
	}
	r, _ := http.NewRequest("GET", "http://"+g.addr+"/a", nil)
	r.Host = host
	response, err := http2Client(g.t).RoundTrip(r)
	if err != nil {
		return
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err == nil {
		g.t.Errorf("HTTP/2: got a complete body of %d bytes", len(body))
	}
}

// TestUnreachable: nobody there, or a name that is none.
func TestUnreachable(t *testing.T) {
	dead := refusing(t)
	g := startGateway(t, &slipswitch.Proxy{},
		slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(dead, dead)},
		slipswitch.Route{Path: "/nowhere", Upstreams: slipswitch.To("http://host.invalid:80")},
		slipswitch.Route{Path: "/tls", Upstreams: slipswitch.To(strings.Replace(dead, "http:", "https:", 1))})
	address := strings.TrimPrefix(dead, "http://")
	for _, path := range []string{"/dead", "/nowhere", "/tls"} {
		for _, raw := range []string{request("GET", path), request("POST", path, "Content-Length: 3") + "abc", handshake(path)} {
			for _, accept := range []string{"text/html", "application/json", "*/*"} {
				a := g.do(strings.Replace(raw, "\r\n", "\r\nAccept: "+accept+"\r\n", 1))
				if a.StatusCode != 502 {
					t.Errorf("%s: got %s; want 502", path, a.Status)
				}
				if strings.Contains(a.body, address) || strings.Contains(a.body, "invalid:") {
					t.Errorf("%s: the client can read %q", path, a.body)
				}
			}
		}
	}
}

// TestErrorForms: what the client likes best, and the headers that all have.
func TestErrorForms(t *testing.T) {
	var log logBuffer
	silent := startScript(t, func(u *upstream, p *peer) bool { p.rest(); return false })
	r := route("/slow", silent)
	r.HeaderTimeout, r.MaxBody = 20*time.Millisecond, 10
	p := &slipswitch.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	g := startGateway(t, p, r, slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	for _, test := range []struct {
		name, raw   string
		status      int
		proxyStatus string
	}{
		{"bad target", request("GET", "/dead/%00"), 400, "http_request_error"},
		{"bad host", "GET /dead HTTP/1.1\r\nHost: a..b\r\n\r\n", 400, "http_request_error"},
		{"bad upgrade", request("GET", "/dead", "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"), 400, "http_request_error"},
		{"no route", request("GET", "/<script>"), 404, "destination_not_found"},
		{"method", request("TRACE", "/dead"), 405, "http_request_denied"},
		{"too large", request("POST", "/slow", "Content-Length: 11") + "hello world", 413, "http_request_denied"},
		{"version", request("GET", "/dead", "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 8"), 426, "http_request_denied"},
		{"unreachable", request("GET", "/dead"), 502, "destination_unavailable"},
		{"timeout", request("GET", "/slow"), 504, "http_response_timeout"},
	} {
		for accept, want := range map[string]string{
			"": "text/plain; charset=utf-8", "*/*": "text/plain; charset=utf-8", "text/html,*/*;q=0.8": "text/html; charset=utf-8",
			"application/json": "application/json", "Application/JSON;q=1": "application/json", "image/png": "text/plain; charset=utf-8",
			"text/html;q=0": "text/plain; charset=utf-8", "text/html; Q=0.000, application/json": "application/json", "application/json;q=0, text/html;q=0": "text/plain; charset=utf-8",
			"text/html;q=0.5, application/json;q=0.9": "application/json", "application/json, text/html": "text/html; charset=utf-8",
			"text/html;level=1;q=0, application/json;q=0.1": "application/json", "text/html;q=x": "text/plain; charset=utf-8", "text/html;q=NaN": "text/plain; charset=utf-8",
		} {
			a := g.do(strings.Replace(test.raw, "\r\n", "\r\nAccept: "+accept+"\r\n", 1))
			if a.StatusCode != test.status || a.Header.Get("Content-Type") != want || a.Header.Get("Cache-Control") != "no-store" ||
				a.Header.Get("Proxy-Status") != "slipswitch; error="+test.proxyStatus || a.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s, %q: got %s %v; want %d, %s", test.name, accept, a.Status, a.Header, test.status, want)
			}
			if strings.Contains(a.body, "script") || strings.Contains(a.body, "127.0.0.1") || strings.Contains(a.body, "10.0.0") {
				t.Errorf("%s: got body %q", test.name, a.body)
			}
			if strings.Contains(want, "json") {
				var body struct {
					Status int
					Error  string
				}
				if err := json.Unmarshal([]byte(a.body), &body); err != nil || body.Status != test.status || body.Error == "" {
					t.Errorf("%s: got %q, %v", test.name, a.body, err)
				}
			} else if !strings.Contains(a.body, http.StatusText(test.status)) {
				t.Errorf("%s: got %q", test.name, a.body)
			}
		}
	}
	receive(t, "all is logged", slipswitch.Logged(p))
	if got := log.String(); !strings.Contains(got, "status=502") || !strings.Contains(got, "status=504") || strings.Contains(got, "status=4") {
		t.Errorf("the log has %q", got)
	}
}

// TestErrorHandler answers in the place of the Proxy, which has set the header.
func TestErrorHandler(t *testing.T) {
	p := &slipswitch.Proxy{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err *slipswitch.Error) {
		w.Header().Set("X-Reason", err.Reason)
		w.WriteHeader(err.Status)
		io.WriteString(w, "mine")
	}}
	g := startGateway(t, p, slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	for _, raw := range []string{request("GET", "/dead"), handshake("/dead"), request("POST", "/dead", "Content-Length: 3") + "abc"} {
		a := g.do(raw)
		if a.StatusCode != 502 || a.body != "mine" || a.Header.Get("X-Reason") == "" || a.Header.Get("Proxy-Status") == "" {
			t.Errorf("got %s %v %q", a.Status, a.Header, a.body)
		}
	}
	if a := g.get("/none"); a.StatusCode != 404 || a.body != "mine" {
		t.Errorf("got %s %q", a.Status, a.body)
	}
}

// TestErrorHandlerMayLeaveAnswer to the handler in front, which has its own way
// to answer errors; also where a body is not read.
func TestErrorHandlerMayLeaveAnswer(t *testing.T) {
	p := &slipswitch.Proxy{ErrorHandler: func(http.ResponseWriter, *http.Request, *slipswitch.Error) {}}
	g := startHandler(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.ServeHTTP(w, r)
		w.WriteHeader(http.StatusTeapot)
	}), slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://127.0.0.1:1")})
	for _, raw := range []string{request("GET", "/a"), handshake("/a"), request("POST", "/a", "Content-Length: 5")} {
		if a := g.do(raw); a.StatusCode != http.StatusTeapot {
			t.Errorf("%.20q: got %s; want 418", raw, a.Status)
		}
	}
}

// TestNext gets what has no route, as it came, and nothing else.
func TestNext(t *testing.T) {
	u := answering(t, ok("routed"))
	var seen *http.Request
	p := &slipswitch.Proxy{}
	g := startHandler(t, p, p.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		io.WriteString(w, "next")
	})), route("/a", u))
	raw := request("GET", "/b/%61//x?%zz;", "X-Forwarded-For: 1.2.3.4", "X_Y: z", "Connection: X-Named", "X-Named: 1", "Upgrade: websocket")
	if a := g.do(raw); a.body != "next" || a.Close {
		t.Errorf("got %s %q, close %v", a.Status, a.body, a.Close)
	}
	if seen.RequestURI != "/b/%61//x?%zz;" || seen.Header.Get("X-Forwarded-For") != "1.2.3.4" || seen.Header.Get("X-Named") != "1" {
		t.Errorf("next got %s %v", seen.RequestURI, seen.Header)
	}
	if a := g.do("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n"); a.StatusCode != 200 {
		t.Errorf("CONNECT without a route: got %s", a.Status)
	}
	u.nothing()
	if a := g.get("/a"); a.body != "routed" {
		t.Errorf("got %q", a.body)
	}
	if a := g.get("/b/%00"); a.StatusCode != 400 {
		t.Errorf("got %s; want 400", a.Status)
	}
}

// TestHandlerInFrontMayChangePath: then it is that path which counts.
func TestHandlerInFrontMayChangePath(t *testing.T) {
	u := answering(t, ok(""))
	p := &slipswitch.Proxy{}
	g := startHandler(t, p, http.StripPrefix("/outer", p), route("/a", u))
	for target, want := range map[string]string{"/outer/a/%61%2Fb": "/a/%61%2Fb", "/outer/a/x y": "", "/outer/a/é": "/a/é", "/outer/%2561": "", "/outer/a/%2e%2e%2fx": "/a/%2e%2e%2fx"} {
		a := g.get(target)
		if want == "" {
			if a.StatusCode == 200 {
				t.Errorf("%q: got %s", target, a.Status)
			}
			u.nothing()
			continue
		}
		got, _ := url.PathUnescape(u.only().target())
		if want, _ := url.PathUnescape(want); got != want {
			t.Errorf("%q arrived as %q; want %q", target, got, want)
		}
	}
}

// TestEachUpstreamIsTriedOnce: a route of nothing but refusing upstreams
// is asked each once.
func TestEachUpstreamIsTriedOnce(t *testing.T) {
	var dialled []string
	routes := slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://10.0.0.1:1", "http://10.0.0.2:1", "http://10.0.0.3:1")}
	p := &slipswitch.Proxy{DialContext: dialer(func(address string) { dialled = append(dialled, address) })}
	g := startGateway(t, p, routes)
	for _, raw := range []string{request("GET", "/"), request("POST", "/", "Content-Length: 3") + "abc", handshake("/")} {
		dialled = nil
		if a := g.do(raw); a.StatusCode != 502 {
			t.Errorf("got %s", a.Status)
		}
		slices.Sort(dialled)
		if want := []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"}; !slices.Equal(dialled, want) {
			t.Errorf("dialled %q; want %q", dialled, want)
		}
	}
}
