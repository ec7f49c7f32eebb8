package slipswitch_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// setUser is a Middleware that tells the upstream who the user is.
func setUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Auth-User", "alice")
		next.ServeHTTP(w, r)
	})
}

// eachWay sends header lines with a plain request, and with a handshake, and
// hands over what the upstream received.
func eachWay(t *testing.T, p func() *slipswitch.Proxy, change func(*slipswitch.Route), test func(t *testing.T, send func(lines ...string) received)) {
	for _, way := range []string{"plain", "upgrade"} {
		t.Run(way, func(t *testing.T) {
			reply, raw := ok(""), func(lines []string) string { return request("GET", "/a/x", lines...) }
			if way == "upgrade" {
				reply, raw = switching(), func(lines []string) string { return handshake("/a/x", lines...) }
			}
			u := answering(t, reply)
			r := route("/a", u)
			if change != nil {
				change(&r)
			}
			g := startGateway(t, p(), r)
			test(t, func(lines ...string) received {
				t.Helper()
				if a := g.do(raw(lines)); a.StatusCode != 200 && a.StatusCode != 101 {
					t.Fatalf("got %s %s", a.Status, a.body)
				}
				return u.only()
			})
		})
	}
}

// TestHeadersOfUntrustedPeers: nothing that a client says of where it comes
// from is believed, however it is spelt.
func TestHeadersOfUntrustedPeers(t *testing.T) {
	forwarded := map[string][]string{
		"X-Forwarded-For": {"127.0.0.1"}, "X-Real-Ip": {"127.0.0.1"}, "X-Forwarded-Host": {host},
		"X-Forwarded-Proto": {"http"}, "X-Forwarded-Port": {"80"}, "Via": {"1.1 slipswitch"},
	}
	eachWay(t, func() *slipswitch.Proxy { return &slipswitch.Proxy{} }, nil, func(t *testing.T, send func(...string) received) {
		for _, line := range []string{
			"Forwarded: for=1.2.3.4;proto=https;host=evil.com", "forwarded: for=x", "X-Forwarded-For: 1.2.3.4", "x-forwarded-for: 1.2.3.4, 5.6.7.8",
			"X-Forwarded-Host: evil.com", "X-Forwarded-Proto: https", "X-Forwarded-Port: 443", "X-Forwarded-Prefix: /evil",
			"X-Forwarded-Server: evil", "X-Forwarded-Uri: /admin", "X-Forwarded-Anything: x", "X-Real-IP: 1.2.3.4",
			"X-Original-URL: /admin", "X-Original-Forwarded-For: 1.2.3.4", "X_Forwarded_For: 1.2.3.4", "X-Forwarded_For: 1.2.3.4",
			"x_real_ip: 1.2.3.4", "X_Original_URL: /admin", "Connection: X-Forwarded-For", "Connection: X-Real-Ip, close, X-Forwarded-Host",
			"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8", "X-Forwarded-For:", "X.forwarded.for: 1.2.3.4", "X-Forwarded!For: 1.2.3.4",
			"Proxy: evil", "X-Rewrite-URL: /admin", "X-Scheme: https", "True-Client-IP: 1.2.3.4", "X-Client-IP: 1.2.3.4", "Client-IP: 1.2.3.4",
			"X-Forwarded: 1.2.3.4", "Forwarded-For: 1.2.3.4", "X-Cluster-Client-IP: 1.2.3.4", "CF-Connecting-IP: 1.2.3.4", "CF-Visitor: {}",
			"Fastly-Client-IP: 1.2.3.4", "X-Azure-ClientIP: 1.2.3.4", "X-Envoy-External-Address: 1.2.3.4", "WL-Proxy-Client-IP: 1.2.3.4", "Front-End-Https: on",
			"X-Url-Scheme: https", "X-Host: evil.com", "X-Real-Port: 1", "X-ARR-SSL: on", "Client-Cert: :x:", "X-SSL-Client-Verify: SUCCESS", "SSL-Client-Cert: x",
		} {
			got := send(line)
			for name, values := range got.Header {
				if want := forwarded[name]; want != nil && !slices.Equal(values, want) {
					t.Errorf("%q: got %s: %q; want %q", line, name, values, want)
				} else if want == nil && !strings.HasPrefix(name, "Sec-Websocket-") && name != "Connection" && name != "Upgrade" {
					t.Errorf("%q: got %s: %q", line, name, values)
				}
			}
			for name := range forwarded {
				if got.Header[name] == nil {
					t.Errorf("%q: no %s", line, name)
				}
			}
		}
	})
}

// TestHeadersOfTrustedPeers: what a trusted proxy says stays, and the client
// is the right-most address that is not trusted.
func TestHeadersOfTrustedPeers(t *testing.T) {
	p := func() *slipswitch.Proxy {
		return &slipswitch.Proxy{TrustedProxies: append(loopback, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"))}
	}
	eachWay(t, p, nil, func(t *testing.T, send func(...string) received) {
		for _, test := range []struct{ lines, client, chain string }{
			{"", "127.0.0.1", "127.0.0.1"},
			{"X-Forwarded-For: 1.2.3.4", "1.2.3.4", "1.2.3.4, 127.0.0.1"},
			{"X-Forwarded-For: 6.6.6.6, 1.2.3.4", "1.2.3.4", "1.2.3.4, 127.0.0.1"},
			{"X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4", "1.2.3.4, 10.0.0.1, 127.0.0.1"},
			{"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4 , 10.0.0.1", "1.2.3.4", "1.2.3.4, 10.0.0.1, 127.0.0.1"},
			{"X-Forwarded-For: 10.0.0.2,10.0.0.1", "10.0.0.2", "10.0.0.2, 10.0.0.1, 127.0.0.1"},
			{"X-Forwarded-For: 2001:DB8::0:1", "2001:db8::1", "2001:db8::1, 127.0.0.1"},
			{"X-Forwarded-For: ::ffff:1.2.3.4, fd00::1", "1.2.3.4", "1.2.3.4, fd00::1, 127.0.0.1"},
			{"X-Forwarded-For: 1.2.3.4, unknown", "127.0.0.1", "127.0.0.1"},
			{"X-Forwarded-For: 1.2.3.4, unknown, 10.0.0.1", "10.0.0.1", "10.0.0.1, 127.0.0.1"},
			{"X-Forwarded-For: 1.2.3.4,", "127.0.0.1", "127.0.0.1"},
			{"X-Forwarded-For: fe80::1%eth0", "127.0.0.1", "127.0.0.1"},
			{"X_Forwarded_For: 1.2.3.4", "127.0.0.1", "127.0.0.1"},
		} {
			got := send(strings.Split(test.lines, "\r\n")...)
			if test.lines == "" {
				got = send()
			}
			client, chain := got.Header["X-Real-Ip"], got.Header["X-Forwarded-For"]
			if !slices.Equal(client, []string{test.client}) || !slices.Equal(chain, []string{test.chain}) {
				t.Errorf("%q: got X-Real-IP %q, X-Forwarded-For %q; want %q, %q", test.lines, client, chain, test.client, test.chain)
			}
		}

		for line, want := range map[string]string{ // the request header, and what arrives of it
			"X-Forwarded-Host: a.example.com:8443":            "X-Forwarded-Host: a.example.com:8443",
			"X-Forwarded-Host: a b":                           "X-Forwarded-Host: " + host,
			"X-Forwarded-Host: a, b":                          "X-Forwarded-Host: a",
			"X-Forwarded-Proto: https":                        "X-Forwarded-Proto: https",
			"X-Forwarded-Proto: HTTPS, x":                     "X-Forwarded-Proto: https",
			"X-Forwarded-Proto: x, https":                     "X-Forwarded-Proto: http",
			"X-Forwarded-Proto: javascript":                   "X-Forwarded-Proto: http",
			"X-Forwarded-Port: 8443":                          "X-Forwarded-Port: 8443",
			"X-Forwarded-Port: 8443x":                         "X-Forwarded-Port: 80",
			"X-Forwarded-Port: ":                              "X-Forwarded-Port: 80",
			"X-Forwarded-Prefix: /outer/":                     "X-Forwarded-Prefix: /outer",
			"X-Forwarded-Prefix: //evil.com\\x":               "",
			"X-Forwarded-Prefix: /a/../b":                     "",
			"X-Original-URL: /x":                              "X-Original-Url: /x",
			"Forwarded: for=1.2.3.4":                          "Forwarded: for=1.2.3.4;host=" + host + ";proto=http, for=127.0.0.1",
			"Forwarded: for=1.2.3.4\r\nForwarded: for=\"_x\"": "Forwarded: for=_x;host=" + host + ";proto=http, for=127.0.0.1",
		} {
			got := send(strings.Split(line, "\r\n")...)
			name, value, _ := strings.Cut(want, ": ")
			if name == "" {
				if got.Header["X-Forwarded-Prefix"] != nil {
					t.Errorf("%q: got %q", line, got.Header["X-Forwarded-Prefix"])
				}
			} else if !slices.Equal(got.Header[name], []string{value}) {
				t.Errorf("%q: got %s: %q; want %q", line, name, got.Header[name], value)
			}
		}
	})
}

// TestForwardedPrefix tells the upstream what a route strips.
func TestForwardedPrefix(t *testing.T) {
	strip := func(r *slipswitch.Route) { r.StripPath = true }
	eachWay(t, func() *slipswitch.Proxy { return &slipswitch.Proxy{TrustedProxies: loopback} }, strip, func(t *testing.T, send func(...string) received) {
		if got := send(); got.Header.Get("X-Forwarded-Prefix") != "/a" || got.target() != "/x" {
			t.Errorf("got %q for %q", got.Header["X-Forwarded-Prefix"], got.target())
		}
		if got := send("X-Forwarded-Prefix: /outer"); got.Header.Get("X-Forwarded-Prefix") != "/outer/a" {
			t.Errorf("got %q", got.Header["X-Forwarded-Prefix"])
		}
	})
}

// TestHopByHopHeaders end at the gateway; what Middleware sets does not, even
// if the client has named it in Connection.
func TestHopByHopHeaders(t *testing.T) {
	p := func() *slipswitch.Proxy { return &slipswitch.Proxy{Middleware: setUser} }
	eachWay(t, p, nil, func(t *testing.T, send func(...string) received) {
		for _, line := range []string{
			"X-Auth-User: root", "X_Auth_User: root", "x-auth_user: root", "Connection: X-Auth-User", "Connection: x-auth-user,close", "connection: keep-alive , x-AUTH-user",
			"Connection: X-Auth-User\r\nX-Auth-User: root", "Connection: X_Auth_User\r\nX_Auth_User: root",
		} {
			got := send(line)
			if values := got.Header["X-Auth-User"]; !slices.Equal(values, []string{"alice"}) {
				t.Errorf("%q: got X-Auth-User: %q; want alice", line, values)
			}
			if strings.Contains(got.head, "root") || strings.Contains(got.head, "_") {
				t.Errorf("%q: got %q", line, got.head)
			}
		}
		got := send("Connection: X-Drop, Keep-Alive", "X-Drop: x", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive",
			"Proxy-Authorization: Basic x", "Proxy-Authenticate: x", "TE: gzip, trailers;q=0.5", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
			"Trailer: X-Drop", "X-Keep: 1", "X-Keep: 2", "Cookie: a=b", "Authorization: Bearer x")
		for _, name := range []string{"X-Drop", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Te", "Http2-Settings", "Trailer"} {
			if values, ok := got.Header[name]; ok {
				t.Errorf("got %s: %q", name, values)
			}
		}
		if !slices.Equal(got.Header["X-Keep"], []string{"1", "2"}) || got.Header.Get("Cookie") != "a=b" || got.Header.Get("Authorization") != "Bearer x" {
			t.Errorf("got %q", got.head)
		}
		if got := send("TE: trailers", "Connection: TE"); got.Header.Get("Te") != "trailers" {
			t.Errorf("got TE: %q; want trailers", got.Header["Te"])
		}
	})
}

// TestMiddlewareCannotBreakMessages: headers that frame a message are the
// gateway's, whatever Middleware does.
func TestMiddlewareCannotBreakMessages(t *testing.T) {
	p := func() *slipswitch.Proxy {
		return &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, line := range []string{"Host: evil.com", "Connection: close", "Upgrade: h2c", "Transfer-Encoding: chunked", "Content-Length: 7", "Trailer: X"} {
					name, value, _ := strings.Cut(line, ": ")
					r.Header.Set(name, value)
				}
				if r.URL.RawQuery == "split" {
					r.Header.Set("X-Split", "a\r\nX-Injected: b")
				}
				w.Header().Set("Content-Length", "7")
				w.Header().Set("X-Split", "a\r\nX-Injected: b")
				next.ServeHTTP(w, r)
			})
		}}
	}
	u := answering(t, switching())
	g := startGateway(t, p(), route("/a", u))
	a := g.do(handshake("/a"))
	if a.StatusCode != 101 || a.Header["X-Injected"] != nil || a.Header["Content-Length"] != nil {
		t.Errorf("the client got %s %v", a.Status, a.Header)
	}
	got := u.only()
	if got.Host != host || !slices.Equal(got.Header["Connection"], []string{"Upgrade"}) || !slices.Equal(got.Header["Upgrade"], []string{"websocket"}) ||
		got.ContentLength != 0 || got.TransferEncoding != nil || got.Header["X-Injected"] != nil || strings.Count(got.head, "\r\nHost:") != 1 {
		t.Errorf("the upstream got %q", got.head)
	}
	for _, raw := range []string{handshake("/a?split"), request("GET", "/a?split")} {
		if a := g.do(raw); a.StatusCode != 500 || len(u.all()) > 0 {
			t.Errorf("got %s, and the upstream %d requests; want 500 and none", a.Status, len(u.all()))
		}
	}
}

// TestRequestTrailers pass, but for those that no header may be.
func TestRequestTrailers(t *testing.T) {
	u := answering(t, ok(""))
	g := startGateway(t, &slipswitch.Proxy{Middleware: setUser}, route("/a", u))
	post := func(declared string, trailers ...string) received {
		t.Helper()
		a := g.do(request("POST", "/a", "Transfer-Encoding: chunked", "Trailer: "+declared) + "3\r\nabc\r\n0\r\n" + joined(trailers) + "\r\n")
		if a.StatusCode != 200 {
			t.Fatalf("got %s", a.Status)
		}
		got := u.only()
		if got.body != "abc" {
			t.Errorf("got body %q", got.body)
		}
		return got
	}
	got := post("X-Checksum, X-Other", "X-Checksum: 1", "X-Other: 2")
	if want := (http.Header{"X-Checksum": {"1"}, "X-Other": {"2"}}); !maps.EqualFunc(got.Trailer, want, slices.Equal) {
		t.Errorf("got trailers %v; want %v", got.Trailer, want)
	}
	for _, name := range []string{
		"X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Original-URL", "X_Checksum", "X_Forwarded_For", "Connection", "Upgrade",
		"Keep-Alive", "X-Auth-User", "X-Forwarded-Host", "Te", "Proxy-Authorization",
	} {
		got := post("X-Checksum, "+name, "X-Checksum: 1", name+": evil")
		if want := (http.Header{"X-Checksum": {"1"}}); !maps.EqualFunc(got.Trailer, want, slices.Equal) {
			t.Errorf("%s: got trailers %v", name, got.Trailer)
		}
		if strings.Contains(got.head, "evil") {
			t.Errorf("%s: got %q", name, got.head)
		}
	}
	// Those that were not declared, and those that Connection names.
	if got := post("X-Checksum", "X-Late: 1"); got.Trailer["X-Late"] != nil {
		t.Errorf("got trailers %v", got.Trailer)
	}
	a := g.do(request("POST", "/a", "Transfer-Encoding: chunked", "Trailer: X-Drop", "Connection: X-Drop") + "0\r\nX-Drop: 1\r\n\r\n")
	if got := u.only(); a.StatusCode != 200 || got.Trailer["X-Drop"] != nil {
		t.Errorf("got %s, trailers %v", a.Status, got.Trailer)
	}
}

// TestDeletedFieldsStayDeleted: what Middleware deletes, or sets, in the header
// does not come as a trailer, be it that the client has sent both or only that.
func TestDeletedFieldsStayDeleted(t *testing.T) {
	u := answering(t, ok(""))
	var seen http.Header
	p := &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = r.Header.Clone()
			r.Header.Del("X-Deleted")
			r.Header.Set("X-Set", "1")
			next.ServeHTTP(w, r)
		})
	}}
	g := startGateway(t, p, route("/a", u))
	for _, lines := range [][]string{nil, {"X-Deleted: 1", "X-Set: 2", "X-Both: 3"}} {
		a := g.do(request("POST", "/a", append(lines, "Transfer-Encoding: chunked", "Trailer: X-Deleted, X-Set, X-Both, X-Sum")...) +
			"3\r\nabc\r\n0\r\nX-Deleted: evil\r\nX-Set: evil\r\nX-Both: evil\r\nX-Sum: 1\r\n\r\n")
		got := u.only()
		want := http.Header{"X-Sum": {"1"}}
		if lines == nil {
			want["X-Both"] = []string{"evil"} // an ordinary trailer
		}
		if a.StatusCode != 200 || got.body != "abc" || !maps.EqualFunc(got.Trailer, want, slices.Equal) || strings.Contains(got.head, "X-Sum:") {
			t.Errorf("%q: got %s, trailers %v in %q; want %v", lines, a.Status, got.Trailer, got.head, want)
		}
		if lines == nil && seen.Get("X-Sum") != "" {
			t.Errorf("Middleware saw %v", seen)
		}
	}
}

// TestHostFieldOfHTTP2: net/http's HTTP/2 server leaves a Host field that stands
// beside :authority in the header. Middleware must see only what was matched.
func TestHostFieldOfHTTP2(t *testing.T) {
	u := answering(t, ok(""))
	var seen []string
	p := &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = append(r.Header["Host"], r.Host)
			next.ServeHTTP(w, r)
		})
	}}
	g := startHandler(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header["Host"] = []string{"evil.example"}
		p.ServeHTTP(w, r)
	}), route("/a", u))
	if a := g.get("/a"); a.StatusCode != 200 || !slices.Equal(seen, []string{host}) {
		t.Errorf("got %s; Middleware saw hosts %q; want %q", a.Status, seen, host)
	}
}

// TestResponseTrailers pass, those that were announced and those that were not.
func TestResponseTrailers(t *testing.T) {
	u := answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Late: 2\r\n\r\n")
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	a := g.get("/a", "TE: trailers")
	if a.body != "abc" || a.Trailer.Get("X-Sum") != "1" || a.Trailer.Get("X-Late") != "2" {
		t.Errorf("got %q with trailers %v", a.body, a.Trailer)
	}
}

// TestResponseTrailersAreClean: what may not be in a header may not come behind
// the body either, announced or not.
func TestResponseTrailersAreClean(t *testing.T) {
	hop := []string{"Connection: X", "Keep-Alive: 1", "Proxy-Connection: 1", "Upgrade: h2c", "Te: x", "X-Named: 1", "Host: evil.com", "Set-Cookie: session=evil"}
	tenants := []string{"Clear-Site-Data: \"*\"", "Strict-Transport-Security: max-age=1", "X-Accel-Redirect: /x", "Service-Worker-Allowed: /"}
	rules := []string{"X-Hidden: 1", "X-Removed: 1", "X-Set: evil"}
	headers := slipswitch.Headers{HideHeaders: []string{"x-hidden"},
		Response: slipswitch.HeaderRules{Remove: []string{"x-removed"}, Set: map[string]string{"x-set": "1"}}}
	for _, test := range []struct {
		name    string
		change  func(*slipswitch.Route)
		dropped []string
	}{
		{"any", func(*slipswitch.Route) {}, hop},
		{"tenant", func(r *slipswitch.Route) { r.Tenant = true }, slices.Concat(hop, tenants)},
		{"rules", func(r *slipswitch.Route) { r.Headers = headers }, slices.Concat(hop, rules)},
	} {
		for _, announced := range []bool{true, false} {
			var names []string
			lines := slices.Concat(hop, tenants, rules, []string{"X-Sum: 1"})
			for _, line := range lines {
				name, _, _ := strings.Cut(line, ":")
				names = append(names, name)
			}
			announce := "X-Fine: 1"
			if announced {
				announce = "Trailer: " + strings.Join(names, ", ")
			}
			u := answering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X-Named\r\n"+announce+"\r\n\r\n3\r\nabc\r\n0\r\n"+joined(lines)+"\r\n")
			r := route("/a", u)
			test.change(&r)
			g := startGateway(t, &slipswitch.Proxy{}, r)
			client := g.dial()
			client.send(request("GET", "/a", "TE: trailers", "Connection: close"))
			raw, _ := client.rest()
			head, body, _ := strings.Cut(raw, "\r\n\r\n")
			_, trailer, _ := strings.Cut(body, "\r\n0\r\n")
			if !strings.Contains(trailer, "X-Sum: 1\r\n") {
				t.Errorf("%s, %v: got %q", test.name, announced, raw)
			}
			for _, line := range lines {
				name, _, _ := strings.Cut(line, ":")
				if got, want := strings.Contains(trailer, "\r\n"+name+":") || strings.HasPrefix(trailer, name+":"), !slices.Contains(test.dropped, line); got != want {
					t.Errorf("%s, announced %v: %s arrives: %v; want %v", test.name, announced, name, got, want)
				}
				if announced && strings.Contains(head, name) != !slices.Contains(test.dropped, line) && name != "Connection" && name != "X-Set" {
					t.Errorf("%s: %s is announced: %q", test.name, name, head)
				}
			}
		}
	}
}

// TestResponseHeaders: what is between the upstream and the gateway ends here,
// Middleware's headers join the upstream's.
func TestResponseHeaders(t *testing.T) {
	u := answering(t, ok("abc", "Connection: X-Drop, keep-alive", "X-Drop: 1", "Keep-Alive: timeout=5", "Proxy-Connection: x",
		"Upgrade: h2c", "Set-Cookie: upstream=1", "Set-Cookie: upstream=2", "Content-Encoding: gzip"))
	g := startGateway(t, &slipswitch.Proxy{Middleware: setCookie}, route("/a", u))
	a := g.get("/a", "Accept-Encoding: gzip")
	for _, name := range []string{"Connection", "X-Drop", "Keep-Alive", "Proxy-Connection", "Upgrade"} {
		if values, ok := a.Header[name]; ok {
			t.Errorf("got %s: %q", name, values)
		}
	}
	if got, want := a.Header["Set-Cookie"], []string{"session=1", "upstream=1", "upstream=2"}; !slices.Equal(got, want) {
		t.Errorf("got Set-Cookie %q; want %q", got, want)
	}
	if a.body != "abc" || a.Header.Get("Content-Encoding") != "gzip" { // not inflated
		t.Errorf("got %q, %v", a.body, a.Header)
	}
	if got := u.only(); got.Header["User-Agent"] != nil || !slices.Equal(got.Header["Accept-Encoding"], []string{"gzip"}) {
		t.Errorf("the upstream got %q", got.head)
	}
	if g.get("/a"); u.only().Header["Accept-Encoding"] != nil {
		t.Error("the upstream got an Accept-Encoding")
	}
}

func setCookie(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "session=1")
		w.Header().Set("X-Frame-Options", "DENY")
		next.ServeHTTP(w, r)
	})
}

// TestResponseCannotBeSplit: bare line ends in what an upstream sends.
func TestResponseCannotBeSplit(t *testing.T) {
	for _, reply := range []string{
		ok("", "X-A: b\rX-Injected: 1"), ok("", "X-A: b\x00"), ok("", "X-A: b\r\r\nX-B: 1"), ok("", "X A: b"), ok("", "X-A : b"), ok("", " X-Injected: 1"),
		"HTTP/1.1 200 OK\rX-Injected: 1\r\nContent-Length: 0\r\n\r\n",
		switching("X-A: b\rX-Injected: 1"), switching("X-A: b\x00"), switching("X A: b"), switching("X-A : b"),
	} {
		u := answering(t, reply)
		g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
		raw := request("GET", "/a", "Connection: close")
		if strings.Contains(reply, " 101 ") {
			raw = handshake("/a")
		}
		client := g.dial()
		client.send(raw)
		head, err := client.head()
		client.Close()
		if err != nil {
			continue
		}
		head = strings.ReplaceAll(head, "\r\n", "|")
		if strings.ContainsAny(head, "\r\n\x00") || strings.Contains(head, "|X-Injected:") {
			t.Errorf("%q: the client got %q", reply, head)
		}
	}
}

// TestManyHeaders: the work for a header is not the product of its fields and
// the names in Connection.
func TestManyHeaders(t *testing.T) {
	u := answering(t, ok(""))
	g := startGateway(t, &slipswitch.Proxy{TrustedProxies: loopback}, route("/a", u))
	names := "Connection: " + strings.Repeat("a,", 200_000)
	var fields strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&fields, "X-%d: 1\r\n", i)
	}
	hops := "X-Forwarded-For: " + strings.Repeat("127.0.0.1,", 20_000) + "127.0.0.1"
	began := time.Now()
	if a := g.get("/a", names, hops, strings.TrimSuffix(fields.String(), "\r\n")); a.StatusCode != 200 {
		t.Errorf("got %s", a.Status)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := u.only(); len(got.Header) < 20_000 {
		t.Errorf("%d fields arrived", len(got.Header))
	}
}

// FuzzForwarded: whatever a peer says, what goes on is well-formed, and an
// untrusted one has said nothing.
func FuzzForwarded(f *testing.F) {
	f.Add("1.2.3.4, 10.0.0.1", "for=1.2.3.4", "a.example.com:8443", "https", "8443", "/outer", "X-Real-Ip, close", host, true)
	f.Add("", "", "", "", "", "", "", host+":80", false)
	f.Add("unknown,", "\"", "a,b", "HTTP", "80x", "//x", "X-Forwarded-For", "[::1]:8080", true)
	f.Add("::ffff:1.2.3.4, fe80::1%lo", ",", "[::1", "wss", ":", "/a/%2e%2e/b", ",,", "IDE.example.com.", true)
	u := slipswitch.To("http://127.0.0.1:1")
	var router slipswitch.Router
	if _, err := router.Update(func(tx *slipswitch.Txn) error {
		tx.Put(slipswitch.Route{Path: "/s", StripPath: true, Upstreams: u})
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	var seen http.Header
	capture := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header })
	}
	open := &slipswitch.Proxy{Router: &router, Middleware: capture}
	trusting := &slipswitch.Proxy{Router: &router, Middleware: capture, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, chain, forwarded, fhost, proto, port, prefix, connection, name string, trusted bool) {
		r := httptest.NewRequest("GET", "/s/x", nil)
		r.Host, r.RemoteAddr = name, "10.0.0.9:1234"
		for field, value := range map[string]string{
			"X-Forwarded-For": chain, "Forwarded": forwarded, "X-Forwarded-Host": fhost, "X-Forwarded-Proto": proto, "X-Forwarded-Port": port,
			"X-Forwarded-Prefix": prefix, "Connection": connection, "X-Real-Ip": chain, "X-Original-Url": prefix, "X_real_ip": chain,
		} {
			if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				return // net/http refuses that
			}
			if value != "" {
				r.Header[field] = []string{value}
			}
		}
		seen = nil
		proxy := open
		if trusted {
			proxy = trusting
		}
		w := httptest.NewRecorder()
		proxy.ServeHTTP(w, r)
		if seen == nil {
			if w.Code != 400 {
				t.Fatalf("Host %q: got %d", name, w.Code)
			}
			return
		}
		one := func(field string) string {
			if len(seen[field]) != 1 {
				t.Fatalf("%s: %q", field, seen[field])
			}
			return seen[field][0]
		}
		hops := strings.Split(one("X-Forwarded-For"), ", ")
		for i, hop := range hops {
			if addr, err := netip.ParseAddr(hop); (err != nil || addr.String() != hop) && (i > 0 || hop[0] != '_') {
				t.Errorf("X-Forwarded-For: %q", one("X-Forwarded-For"))
			}
		}
		if hops[len(hops)-1] != "10.0.0.9" || hops[0] != one("X-Real-Ip") {
			t.Errorf("X-Forwarded-For %q, X-Real-IP %q", hops, one("X-Real-Ip"))
		}
		for _, hop := range hops[1:] {
			if !strings.HasPrefix(hop, "10.") {
				t.Errorf("%q was trusted in %q", hop, hops)
			}
		}
		if proto := one("X-Forwarded-Proto"); proto != "http" && proto != "https" {
			t.Errorf("X-Forwarded-Proto %q", proto)
		}
		if port := one("X-Forwarded-Port"); port == "" || strings.Trim(port, "0123456789") != "" {
			t.Errorf("X-Forwarded-Port %q", port)
		}
		if prefix := one("X-Forwarded-Prefix"); prefix[0] != '/' || !strings.HasSuffix(prefix, "/s") || strings.ContainsAny(prefix, "\\# ") {
			t.Errorf("X-Forwarded-Prefix %q", prefix)
		}
		if values, ok := seen["X-Forwarded-Host"]; ok && (len(values) != 1 || values[0] == "" || strings.ContainsAny(values[0], ", /@\\")) {
			t.Errorf("X-Forwarded-Host %q", values)
		}
		if values, ok := seen["Forwarded"]; ok {
			scheme, for_ := "proto="+one("X-Forwarded-Proto"), hops[0]
			if strings.Contains(for_, ":") {
				for_ = `"[` + for_ + `]"`
			}
			if first, _, _ := strings.Cut(values[0], ", "); len(values) != 1 || !strings.HasPrefix(first, "for="+for_+";") || !strings.HasSuffix(first, scheme) ||
				strings.Count(values[0], "for=") != len(hops) || strings.Contains(first, "host=") != (seen["X-Forwarded-Host"] != nil) {
				t.Errorf("Forwarded %q contradicts %v", values, seen)
			}
		}
		if seen["X_real_ip"] != nil || seen["Connection"] != nil {
			t.Errorf("%v", seen)
		}
		if !trusted && (len(hops) > 1 || seen["Forwarded"] != nil || seen["X-Original-Url"] != nil ||
			one("X-Forwarded-Prefix") != "/s" || one("X-Forwarded-Proto") != "http") {
			t.Errorf("an untrusted peer was believed: %v", seen)
		}
	})
}

// BenchmarkAdmit is what a request costs before Middleware sees it.
func BenchmarkAdmit(b *testing.B) {
	for _, bench := range []struct {
		name    string
		trusted []netip.Prefix
		lines   http.Header
	}{
		{"direct", nil, nil},
		{"trusted", loopback, http.Header{"X-Forwarded-For": {"203.0.113.7, 127.0.0.2"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"pub.example.com"}}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var router slipswitch.Router
			if _, err := router.Update(func(tx *slipswitch.Txn) error {
				tx.Put(slipswitch.Route{Path: "/s", StripPath: true, Upstreams: slipswitch.To("http://127.0.0.1:1")})
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			p := &slipswitch.Proxy{Router: &router, TrustedProxies: bench.trusted,
				Middleware: func(http.Handler) http.Handler { return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}) }}
			r := httptest.NewRequest("GET", "/s/x", nil)
			r.RemoteAddr = "127.0.0.1:1234"
			r.Header = http.Header{"User-Agent": {"Mozilla/5.0"}, "Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "Accept-Language": {"en"},
				"Cookie": {"a=b; c=d"}, "Referer": {"https://pub.example.com/s/"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Site": {"same-origin"}}
			maps.Copy(r.Header, bench.lines)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				p.ServeHTTP(w, r)
			}
		})
	}
}
