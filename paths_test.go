package slipswitch_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestPathsReachUpstream sends targets and looks at the request line that
// arrives: at tables of several sizes, since a lookup must not depend on them.
func TestPathsReachUpstream(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	tests := []struct {
		target string
		want   string // "" or the target that arrives
		status int
	}{
		{"/a", "/a", 200},
		{"/a/", "/a/", 200},
		{"/a/x", "/a/x", 200},
		{"/a?", "/a?", 200},
		{"/ab", "", 404},
		{"/A/x", "", 404},
		{"/a%2Fx", "", 404},
		{"/a%2fx", "", 404},
		{"//a/x", "", 404},
		{"/a//x", "/a//x", 200},
		{"/%61/x", "/%61/x", 200},
		{"/a/%61", "/a/%61", 200},
		{"/@me/x", "/@me/x", 200},
		{"/%40me/x", "/%40me/x", 200},
		{"/a/é", "/a/é", 200},
		{"/a/%c3%A9", "/a/%c3%A9", 200},
		{"/a/\xff\"<>^`{|}", "/a/\xff\"<>^`{|}", 200},
		{"/a/;x=1,2", "/a/;x=1,2", 200},
		{"/a/" + long, "/a/" + long, 200},
		{"/" + long, "", 404},

		// Dots are resolved before the lookup; what has none keeps its spelling.
		{"/a/./x", "/a/x", 200},
		{"/a/x/..", "/a/", 200},
		{"/a/../b/x", "/b/x", 200},
		{"/b/%2e%2E/a/%61", "/a/%61", 200},
		{"/b/.%2e/a/x", "/a/x", 200},
		{"/a/%2e/x", "/a/x", 200},
		{"/../../a/x", "/a/x", 200},
		{"/a/..", "", 404},
		{"/a/%2e%2e/secret", "", 404},
		{"/a/...", "/a/...", 200},

		// An escaped slash separates nothing, an escaped percent sign escapes
		// nothing: whoever decodes twice does it behind the gateway.
		{"/a/%2e%2e%2fsecret", "/a/%2e%2e%2fsecret", 200},
		{"/a/..%2fsecret", "/a/..%2fsecret", 200},
		{"/a/..%5csecret", "/a/..%5csecret", 200},
		{"/a/%252e%252e/secret", "/a/%252e%252e/secret", 200},
		{"/a/%25%32%65", "/a/%25%32%65", 200},
		{"/%2561/x", "", 404},

		// Malformed.
		{"/a/%", "", 400},
		{"/a/%2", "", 400},
		{"/a/%zz", "", 400},
		{"/a/%00", "", 400},
		{"/a/x%00.png", "", 400},
		{"/a#x", "", 400},
		{"/a/#", "", 400},
		{`/a\x`, "", 400},
		{`/a/..\secret`, "", 400},
		{"/a/\x01", "", 400},
		{"/a/\x7f", "", 400},
		{"/a/\x00", "", 400},
		{"/a/\tx", "", 400},
		{"/a/ x", "", 400},
		{"a/x", "", 400},
		{"*", "", 400},
		{"", "", 400},

		// Queries go as they came.
		{"/a?b;c", "/a?b;c", 200},
		{"/a?%zz&%", "/a?%zz&%", 200},
		{"/a?x=1;y=%zz&x=%00#f", "/a?x=1;y=%zz&x=%00#f", 200},
		{"/a?/../b", "/a?/../b", 200},
		{"/a?\xff\"\\", "/a?\xff\"\\", 200},

		// Stripped: one slash in front, or it would name a host.
		{"/s/x", "/x", 200},
		{"/s/", "/", 200},
		{"/s/%61?q", "/%61?q", 200},
		{"/s//evil.com/x", "/evil.com/x", 200},
		{"/s////evil.com", "/evil.com", 200},
		{"/s/.//evil.com", "/evil.com", 200},
		{"/s/%2Fevil.com", "/%2Fevil.com", 200},
		{"/s/..//evil.com", "", 404},
		{"/%73/x//y", "/x//y", 200},
		{"/p/x", "/base/x", 200},
		{"/p//x", "/base/x", 200},
		{"/p/%2e%2e/x", "", 404},
		{"/keep//x", "/base/keep//x", 200},

		// Absolute form.
		{"http://" + host + "/a/x", "/a/x", 200},
		{"https://user:secret@" + host + ":1/a/%61?q", "/a/%61?q", 200},
		{"http://" + host, "", 404},
		{"http://other.example.com/a/x", "", 404},
		{"http://" + host + "/a/%zz", "", 400},
		{"http:///a/x", "/a/x", 200}, // by Host
	}
	for _, size := range []int{1, 99, 101, 10_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			u := answering(t, ok(""))
			stripped := route("/s", u)
			stripped.StripPath = true
			based := slipswitch.Route{Path: "/p", StripPath: true, Upstreams: slipswitch.To(u.url + "/base/")}
			kept := slipswitch.Route{Path: "/keep", Upstreams: slipswitch.To(u.url + "/base")}
			g := startGateway(t, &slipswitch.Proxy{}, route("/a", u), route("/b", u), route("/@me", u), stripped, based, kept)
			others := make([]slipswitch.Route, size-1)
			for i := range others {
				others[i] = slipswitch.Route{Path: fmt.Sprintf("/a%d/%d", i%100, i), Upstreams: slipswitch.To("http://127.0.0.1:1")}
			}
			g.put(others...)
			for _, test := range tests {
				a := g.get(test.target)
				if a.StatusCode != test.status {
					t.Errorf("%.80q: got %s; want %d", test.target, a.Status, test.status)
				}
				if test.want == "" {
					u.nothing()
				} else if a.StatusCode == 200 {
					if got := u.only().line(); got != "GET "+test.want+" HTTP/1.1" {
						t.Errorf("%.80q arrived as %.80q; want %.80q", test.target, got, test.want)
					}
				}
			}
		})
	}
}

// TestPathsOfUpgrades: a handshake's path goes the way of all others.
func TestPathsOfUpgrades(t *testing.T) {
	u := answering(t, switching())
	stripped := route("/s", u)
	stripped.StripPath = true
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u), stripped)
	for target, want := range map[string]string{
		"/a/%61?b;c&%zz":        "/a/%61?b;c&%zz",
		"/a?":                   "/a?",
		"/b/%2e./a/x":           "/a/x",
		"/a/..%2fx":             "/a/..%2fx",
		"/s":                    "/", // no redirect
		"/s//evil.com":          "/evil.com",
		"/a//x":                 "/a//x",
		"/a/\xff\"<>^`{|}":      "/a/\xff\"<>^`{|}",
		"http://" + host + "/a": "/a",
	} {
		if a := g.do(handshake(target)); a.StatusCode != 101 {
			t.Errorf("%q: got %s", target, a.Status)
		}
		if got := u.only().line(); got != "GET "+want+" HTTP/1.1" {
			t.Errorf("%q arrived as %q; want %q", target, got, want)
		}
	}
}

// TestStrictPath refuses what some servers split or decode where others do not.
func TestStrictPath(t *testing.T) {
	u := answering(t, ok(""))
	g := startGateway(t, &slipswitch.Proxy{StrictPath: true}, route("/", u))
	for _, target := range []string{"/a/%2f", "/a/..%2Fx", "/a/%5cx", "/a/;x", "/a;x/y", "/a/%3b"} {
		if a := g.get(target); a.StatusCode != 400 {
			t.Errorf("%q: got %s; want 400", target, a.Status)
		}
	}
	u.nothing()
	for _, target := range []string{"/a/x", "/a/%25", "/a?x;y=%2f"} {
		if a := g.get(target); a.StatusCode != 200 || u.only().target() != target {
			t.Errorf("%q: got %s; want 200", target, a.Status)
		}
	}
}

// TestMiddlewareSeesResolvedPath: it must not judge another path than the one
// that is forwarded.
func TestMiddlewareSeesResolvedPath(t *testing.T) {
	u := answering(t, ok(""))
	var seen *url.URL
	g := startGateway(t, &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = r.URL
			next.ServeHTTP(w, r)
		})
	}}, route("/", u))
	for target, want := range map[string][2]string{
		"/public/../admin/%61":     {"/admin/a", "/admin/%61"},
		"/public/%2e%2e/admin":     {"/admin", "/admin"},
		"/public/..%2fadmin":       {"/public/../admin", "/public/..%2fadmin"},
		"/public/%252e%252e/admin": {"/public/%2e%2e/admin", "/public/%252e%252e/admin"},
		"/x//../y":                 {"/x/y", "/x/y"},
	} {
		if a := g.get(target); a.StatusCode != 200 {
			t.Errorf("%q: got %s", target, a.Status)
		}
		got := [2]string{seen.Path, seen.EscapedPath()}
		if got != want {
			t.Errorf("%q: Middleware saw %q; want %q", target, got, want)
		}
		if arrived := u.only().target(); arrived != want[1] {
			t.Errorf("%q arrived as %q; want %q", target, arrived, want[1])
		}
	}
}

// TestHTTP2TargetsCannotEndRequestLine: HTTP/2 carries bytes that would be a
// request of their own in HTTP/1.
func TestHTTP2TargetsCannotEndRequestLine(t *testing.T) {
	u := answering(t, ok(""))
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	for _, target := range []string{
		"/a HTTP/1.1", "/a b", "/a?b c", "/a? HTTP/1.1", "/a?x=1 HTTP/1.1\r\nX-Auth-User: root\r\n\r\nGET /b",
		"/a\r\nX: y", "/a?\n", "/a?\x00", "/a?\x7f", "/a\x01", "/a#b", "/a\\b", "a", "//\r\n",
	} {
		if got := g.http2Status("GET", target); got != "400" && got != "" {
			t.Errorf("%q: got %s; want 400 or a stream error", target, got)
		}
	}
	u.nothing()
	if got := g.http2Status("GET", "/a/%61?b;c&%zz"); got != "200" {
		t.Errorf("got %s", got)
	}
	if got := u.only().target(); got != "/a/%61?b;c&%zz" {
		t.Errorf("got %q", got)
	}
}

// http2Status asks for a target by a raw HTTP/2 frame, and returns the status
// of the answer; "" if the request was refused without one.
func (g *gateway) http2Status(method, target string) string {
	g.t.Helper()
	client := g.dial()
	defer client.Close()
	var block []byte
	for _, field := range [][2]string{{":method", method}, {":scheme", "http"}, {":authority", host}, {":path", target}} {
		block = append(block, 0, byte(len(field[0]))) // a literal, not to be indexed (RFC 7541 §6.2.2)
		block = append(append(block, field[0]...), byte(len(field[1])))
		block = append(block, field[1]...)
	}
	client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" +
		string([]byte{0, 0, byte(len(block)), 1, 5, 0, 0, 0, 1}) + string(block))
	client.SetReadDeadline(time.Now().Add(wait))
	for {
		var head [9]byte
		if _, err := io.ReadFull(client, head[:]); err != nil {
			return ""
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(client, payload); err != nil {
			return ""
		}
		switch head[3] {
		case 1: // HEADERS; its first field is the status
			status, ok := map[byte]string{0x88: "200", 0x8c: "400", 0x8d: "404", 0x8e: "500"}[payload[0]]
			if !ok {
				g.t.Fatalf("header block % x", payload)
			}
			return status
		case 3, 7: // RST_STREAM, GOAWAY
			return ""
		}
	}
}

// TestHostsReachUpstream looks at which route a Host leads to, and at what the upstream is
// told of it.
func TestHostsReachUpstream(t *testing.T) {
	var u = map[string]*upstream{}
	g := startGateway(t, &slipswitch.Proxy{})
	for name, pattern := range map[string]string{
		"exact": "ide.example.com", "one": "*.example.com", "many": "**.example.com", "v6": "::1", "k": "k.example.org",
	} {
		u[name] = answering(t, ok(name))
		r := route("/", u[name])
		r.Host = pattern
		g.put(r)
	}
	for _, test := range []struct {
		host, want string // "": the status is 404 or, with "400", 400
		forwarded  string // X-Forwarded-Host; "": as sent
	}{
		{host: "ide.example.com", want: "exact"},
		{host: "ide.example.com:8443", want: "exact"},
		{host: "ide.example.com:", want: "exact", forwarded: "ide.example.com"},
		{"IDE.Example.COM", "exact", "ide.example.com"},
		{"IDE.example.com:443", "exact", "ide.example.com:443"},
		{"ide.example.com.", "exact", "ide.example.com"},
		{"ide.example.com.:80", "exact", "ide.example.com:80"},
		{host: "a.example.com", want: "one"},
		{host: "a.b.example.com", want: "many"},
		{host: "[::1]", want: "v6"},
		{host: "[::1]:80", want: "v6"},
		{"[0:0::1]:80", "v6", "[::1]:80"},
		{"K.example.org", "k", "k.example.org"},
		{host: "example.com"},
		{host: "example.org"},
		{host: "\u212a.example.org", want: "400"}, // the Kelvin sign, which Unicode folds to k
		{host: "ıde.example.com", want: "400"},
		{host: "ide。example。com", want: "400"},
		{host: "ide.example.com..", want: "400"},
		{host: ".ide.example.com", want: "400"},
		{host: "ide..example.com", want: "400"},
		{host: "ide.example.com:80:80", want: "400"},
		{host: "ide.example.com:x", want: "400"},
		{host: "ide.example.com/x", want: "400"},
		{host: "user@ide.example.com", want: "400"},
		{host: "ide.example.com,evil.com", want: "400"},
		{host: "[::1%25lo]", want: "400"},
		{host: "[::1%lo]", want: "400"},
		{host: "::1", want: "400"},
		{host: "[::1", want: "400"},
		{host: "[::1]x", want: "400"},
		{host: "*.example.com", want: "400"},
		{host: strings.Repeat("x", 64) + ".example.com", want: "400"},
		{host: strings.Repeat("x.", 130) + "example.com", want: "400"},
	} {
		a := g.do("GET / HTTP/1.1\r\nHost: " + test.host + "\r\n\r\n")
		switch test.want {
		case "", "400":
			want := 404
			if test.want == "400" {
				want = 400
			}
			if a.StatusCode != want {
				t.Errorf("Host %q: got %s %s; want %d", test.host, a.Status, a.body, want)
			}
		default:
			if a.body != test.want {
				t.Errorf("Host %q: got %s %q; want %q", test.host, a.Status, a.body, test.want)
				continue
			}
			if test.forwarded == "" {
				test.forwarded = test.host
			}
			r := u[test.want].only()
			if r.Host != test.host || r.Header.Get("X-Forwarded-Host") != test.forwarded {
				t.Errorf("Host %q arrived as Host %q, X-Forwarded-Host %q; want the latter %q",
					test.host, r.Host, r.Header.Get("X-Forwarded-Host"), test.forwarded)
			}
		}
	}

	// Without any host, which only HTTP/1.0 may be: routes for any host.
	any := answering(t, ok("any"))
	r := route("/", any)
	if _, err := g.Router.Update(func(tx *slipswitch.Txn) error { tx.Put(r); return nil }); err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]int{
		"GET / HTTP/1.0\r\n\r\n":                                        200,
		"GET / HTTP/1.1\r\n\r\n":                                        400,
		"GET / HTTP/1.1\r\nHost: \r\n\r\n":                              200,
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n":                  400,
		"GET http://ide.example.com/ HTTP/1.1\r\nHost: other\r\n\r\n":   200,
		"GET http://ide.example.com@o/ HTTP/1.1\r\nHost: other\r\n\r\n": 200,
	} {
		if a := g.do(raw); a.StatusCode != want {
			t.Errorf("%q: got %s; want %d", raw, a.Status, want)
		}
	}
	for _, r := range any.all() {
		if got, sent := r.Header["X-Forwarded-Host"]; sent && got[0] != "o" {
			t.Errorf("X-Forwarded-Host: %q", got)
		}
	}
	if got := u["exact"].only(); got.Host != host || got.Header.Get("X-Forwarded-Host") != host {
		t.Errorf("absolute form arrived with Host %q, X-Forwarded-Host %q", got.Host, got.Header.Get("X-Forwarded-Host"))
	}
}

// TestSlashRedirect is for the bare path of a route that strips it.
func TestSlashRedirect(t *testing.T) {
	u := answering(t, ok(""))
	stripped, odd := route("/ws/ide-7", u), route("/ws/a:b", u)
	stripped.StripPath, odd.StripPath = true, true
	g := startGateway(t, &slipswitch.Proxy{}, stripped, odd, route("/plain", u))
	for target, want := range map[string]string{
		"/ws/ide-7":                    "ide-7/",
		"/ws/ide-7?a=1;b&%zz":          "ide-7/?a=1;b&%zz",
		"/ws/ide%2D7":                  "ide%2D7/",
		"/ws/a:b":                      "./a:b/",
		"/x/%2e%2e/ws/ide-7?q":         "ide-7/?q",
		"http://" + host + "/ws/ide-7": "ide-7/",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := g.do(request(method, target))
			if got := a.Header["Location"]; a.StatusCode != 307 || len(got) != 1 || got[0] != want {
				t.Errorf("%s %s: got %s to %q; want 307 to %q", method, target, a.Status, got, want)
			}
		}
	}
	u.nothing()
	for method, target := range map[string]string{"POST": "/ws/ide-7", "OPTIONS": "/ws/ide-7?q", "GET": "/plain"} {
		if a := g.do(request(method, target)); a.StatusCode != 200 {
			t.Errorf("%s %s: got %s", method, target, a.Status)
		}
	}
}
