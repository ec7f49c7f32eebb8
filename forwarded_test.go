package slipswitch_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// ExampleClientFrom tells the upstream which network a request comes from.
func ExampleClientFrom() {
	office := netip.MustParsePrefix("10.1.0.0/16")
	_ = &slipswitch.Proxy{
		Router:         new(slipswitch.Router),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")},
		Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				client, _ := slipswitch.ClientFrom(r.Context())
				if client.Scheme != "https" && !office.Contains(client.Addr) {
					http.Error(w, "HTTPS only", http.StatusForbidden)
					return
				}
				next.ServeHTTP(w, r)
			})
		},
	}
}

// said sums up what an upstream is told of the client.
func said(header http.Header) string {
	var fields []string
	for _, name := range []string{"X-Real-Ip", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded"} {
		if values := header[name]; values != nil {
			fields = append(fields, strings.Join(values, "|"))
		}
	}
	return strings.Join(fields, " / ")
}

// TestWhatTrustedProxiesWrite: every form in use gives one client, scheme, host
// and port, and no field that the upstream gets contradicts another.
func TestWhatTrustedProxiesWrite(t *testing.T) {
	p := func() *slipswitch.Proxy {
		return &slipswitch.Proxy{TrustedProxies: slices.Concat(loopback, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})}
	}
	eachWay(t, p, nil, func(t *testing.T, send func(...string) received) {
		for _, test := range []struct{ lines, want string }{
			// X-Forwarded-For with ports and brackets.
			{"X-Forwarded-For: 203.0.113.7:51008", "203.0.113.7 / 203.0.113.7, 127.0.0.1 / http / ide.example.com / 80"},
			{"X-Forwarded-For: [2001:db8::1]:51008", "2001:db8::1 / 2001:db8::1, 127.0.0.1 / http / ide.example.com / 80"},
			{"X-Forwarded-For: [2001:db8::1], 10.0.0.2:80", "2001:db8::1 / 2001:db8::1, 10.0.0.2, 127.0.0.1 / http / ide.example.com / 80"},
			{"X-Forwarded-For: 2001:db8::1", "2001:db8::1 / 2001:db8::1, 127.0.0.1 / http / ide.example.com / 80"},
			{"X-Forwarded-For: [::ffff:203.0.113.7]:1", "203.0.113.7 / 203.0.113.7, 127.0.0.1 / http / ide.example.com / 80"},
			{"X-Forwarded-For: 203.0.113.7:x y", "127.0.0.1 / 127.0.0.1 / http / ide.example.com / 80"},
			{"X-Forwarded-For: [203.0.113.7]", "127.0.0.1 / 127.0.0.1 / http / ide.example.com / 80"},
			{"X-Forwarded-For: [fe80::1%25eth0]", "127.0.0.1 / 127.0.0.1 / http / ide.example.com / 80"},
			// Schemes.
			{"X-Forwarded-Proto: wss", "127.0.0.1 / 127.0.0.1 / https / ide.example.com / 443"},
			{"X-Forwarded-Proto: ws", "127.0.0.1 / 127.0.0.1 / http / ide.example.com / 80"},
			{"X-Forwarded-Proto: HTTPS", "127.0.0.1 / 127.0.0.1 / https / ide.example.com / 443"},
			{"X-Forwarded-Proto: https,http", "127.0.0.1 / 127.0.0.1 / https / ide.example.com / 443"},
			{"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http", "127.0.0.1 / 127.0.0.1 / https / ide.example.com / 443"},
			// Hosts and ports.
			{"X-Forwarded-Host: pub.example.com, mid", "127.0.0.1 / 127.0.0.1 / http / pub.example.com / 80"},
			{"X-Forwarded-Host: PUB.example.com.:8443", "127.0.0.1 / 127.0.0.1 / http / pub.example.com:8443 / 8443"},
			{"X-Forwarded-Host: pub.example.com:8443\r\nX-Forwarded-Port: 443", "127.0.0.1 / 127.0.0.1 / http / pub.example.com:8443 / 8443"},
			{"X-Forwarded-Port: 8443,80", "127.0.0.1 / 127.0.0.1 / http / ide.example.com / 8443"},
			// Lists as long as the chain: the client's hop.
			{"X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Forwarded-Proto: http,https\r\nX-Forwarded-Host: evil.com, pub.example.com\r\nX-Forwarded-Port: 1,8443",
				"203.0.113.7 / 203.0.113.7, 127.0.0.1 / https / pub.example.com / 8443"},
			{"X-Forwarded-For: 203.0.113.7, 10.0.0.2\r\nX-Forwarded-Proto: https,http\r\nX-Forwarded-Host: pub.example.com, mid",
				"203.0.113.7 / 203.0.113.7, 10.0.0.2, 127.0.0.1 / https / pub.example.com / 443"},
			// Forwarded only.
			{"Forwarded: for=203.0.113.7;proto=https;host=pub.example.com",
				"203.0.113.7 / 203.0.113.7, 127.0.0.1 / https / pub.example.com / 443 / for=203.0.113.7;host=pub.example.com;proto=https, for=127.0.0.1"},
			{`forwarded: For="[2001:db8::1]:51008" ; PROTO="wss";by=_us;host="pub.example.com:8443"`,
				`2001:db8::1 / 2001:db8::1, 127.0.0.1 / https / pub.example.com:8443 / 8443 / for="[2001:db8::1]";host="pub.example.com:8443";proto=https, for=127.0.0.1`},
			{`Forwarded: for=6.6.6.6;host=evil.com, for="203.0.113.7:51008";proto=https;host=pub.example.com,for=10.0.0.2;proto=http;host=mid`,
				"203.0.113.7 / 203.0.113.7, 10.0.0.2, 127.0.0.1 / https / pub.example.com / 443 / for=203.0.113.7;host=pub.example.com;proto=https, for=10.0.0.2, for=127.0.0.1"},
			{"Forwarded: for=203.0.113.7;proto=https\r\nForwarded: for=10.0.0.2;proto=http",
				"203.0.113.7 / 203.0.113.7, 10.0.0.2, 127.0.0.1 / https / ide.example.com / 443 / for=203.0.113.7;host=ide.example.com;proto=https, for=10.0.0.2, for=127.0.0.1"},
			{`Forwarded: for="_hidden:_port";proto=https`,
				"_hidden / _hidden, 127.0.0.1 / https / ide.example.com / 443 / for=_hidden;host=ide.example.com;proto=https, for=127.0.0.1"},
			{"Forwarded: for=unknown;proto=https;host=pub.example.com", "127.0.0.1 / 127.0.0.1 / https / pub.example.com / 443 / for=127.0.0.1;host=pub.example.com;proto=https"},
			{"Forwarded: proto=https;host=pub.example.com", "127.0.0.1 / 127.0.0.1 / https / pub.example.com / 443 / for=127.0.0.1;host=pub.example.com;proto=https"},
			{`Forwarded: for="evil, for=203.0.113.7;proto=https`, // a client's open quote
				"203.0.113.7 / 203.0.113.7, 127.0.0.1 / https / ide.example.com / 443 / for=203.0.113.7;host=ide.example.com;proto=https, for=127.0.0.1"},
			{"Forwarded: for=203.0.113.7;host=a@evil.com;proto=javascript",
				"203.0.113.7 / 203.0.113.7, 127.0.0.1 / http / ide.example.com / 80 / for=203.0.113.7;host=ide.example.com;proto=http, for=127.0.0.1"},
			// Both: a client's Forwarded comes through proxies that write the others.
			{"X-Forwarded-For: 203.0.113.7\r\nForwarded: for=6.6.6.6;proto=https;host=evil.com",
				"203.0.113.7 / 203.0.113.7, 127.0.0.1 / http / ide.example.com / 80 / for=203.0.113.7;host=ide.example.com;proto=http, for=127.0.0.1"},
		} {
			if got := said(send(strings.Split(test.lines, "\r\n")...).Header); got != test.want {
				t.Errorf("%q: got\n%s; want\n%s", test.lines, got, test.want)
			}
		}
		got := send("X-Forwarded-Proto: https", "X-Scheme: http", "X-Forwarded-Scheme: http", "X-Forwarded-Ssl: off", "Front-End-Https: off")
		for name, want := range map[string]string{"X-Scheme": "https", "X-Forwarded-Scheme": "https", "X-Forwarded-Ssl": "on", "Front-End-Https": "on"} {
			if values := got.Header[name]; !slices.Equal(values, []string{want}) {
				t.Errorf("got %s: %q; want %q", name, values, want)
			}
		}
	})
}

// TestConnectionCannotDeleteForwarding: proxies that pass on their client's
// Connection do not let it delete what they say themselves.
func TestConnectionCannotDeleteForwarding(t *testing.T) {
	p := func() *slipswitch.Proxy { return &slipswitch.Proxy{TrustedProxies: loopback} }
	eachWay(t, p, nil, func(t *testing.T, send func(...string) received) {
		got := send("Connection: close, X-Forwarded-For, X-Forwarded-Proto, x-forwarded-host, X-Forwarded-Port, X-Forwarded-Prefix, Forwarded, X-Real-IP, True-Client-IP, X-Original-URL, X-Drop",
			"X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: pub.example.com", "X-Forwarded-Port: 8443", "X-Forwarded-Prefix: /outer",
			"Forwarded: for=203.0.113.7", "True-Client-IP: 203.0.113.7", "X-Original-URL: /x", "X-Drop: 1")
		want := "203.0.113.7 / 203.0.113.7, 127.0.0.1 / https / pub.example.com / 8443 / for=203.0.113.7;host=pub.example.com;proto=https, for=127.0.0.1"
		if said := said(got.Header); said != want {
			t.Errorf("got %s; want %s", said, want)
		}
		for name, want := range map[string]string{"X-Forwarded-Prefix": "/outer", "True-Client-Ip": "203.0.113.7", "X-Original-Url": "/x", "X-Drop": ""} {
			if value := got.Header.Get(name); value != want {
				t.Errorf("got %s: %q; want %q", name, value, want)
			}
		}
	})
}

// forget is a Middleware that deletes, or else changes, all that the request
// says of its client.
func forget(change bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for name := range r.Header {
				if name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" || name == "Origin" {
					if r.Header.Del(name); change {
						r.Header.Set(name, "http://evil.example")
					}
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

// TestClientIsReadOnce: Middleware may change every field, and changes nothing of
// what the Proxy knows.
func TestClientIsReadOnce(t *testing.T) {
	for _, change := range []bool{false, true} {
		u := startUpstream(t, func(r received) string {
			if r.Header.Get("Upgrade") != "" {
				return switching()
			}
			return ok("", "Location: https://pub.example.com:8443/x")
		})
		r := route("/a", u)
		r.StripPath, r.RestorePath, r.SameOrigin = true, true, true
		var seen slipswitch.Client
		p := &slipswitch.Proxy{TrustedProxies: loopback, Limits: slipswitch.Limits{TunnelsPerClient: 1}, Middleware: func(next http.Handler) http.Handler {
			return forget(change)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen, _ = slipswitch.ClientFrom(r.Context())
				next.ServeHTTP(w, r)
			}))
		}}
		g := startGateway(t, p, r)
		from := func(client string) []string {
			return []string{"X-Forwarded-For: " + client, "X-Forwarded-Proto: https", "X-Forwarded-Host: pub.example.com:8443"}
		}
		open := func(client, origin string, want int) *peer {
			t.Helper()
			conn := g.dial()
			conn.send(handshake("/a/", append(from(client), "Origin: "+origin)...))
			if a := conn.answer("GET"); a.StatusCode != want {
				t.Errorf("change %v, %s, %s: got %s; want %d", change, client, origin, a.Status, want)
			}
			return conn
		}
		one := open("203.0.113.7", "https://pub.example.com:8443", 101)
		open("203.0.113.7", "https://pub.example.com:8443", 503)
		open("203.0.113.8", "https://ide.example.com", 403)
		open("203.0.113.8", "http://evil.example", 403)
		two := open("203.0.113.8", "https://PUB.example.com:8443", 101)
		if want := (slipswitch.Client{Peer: netip.MustParseAddr("127.0.0.1"), Addr: netip.MustParseAddr("203.0.113.8"), Scheme: "https",
			Host: "pub.example.com:8443", Port: "8443"}); fmt.Sprint(seen) != "203.0.113.8" || seen.Peer != want.Peer || seen.Addr != want.Addr ||
			seen.Scheme != want.Scheme || seen.Host != want.Host || seen.Port != want.Port {
			t.Errorf("change %v: got %+v; want %+v", change, seen, want)
		}
		for i, tunnel := range g.tunnels(2) {
			if want := fmt.Sprint("203.0.113.", 7+i); tunnel.Client() != want || tunnel.Peer() != "127.0.0.1" {
				t.Errorf("change %v: got client %q, peer %q; want %q, 127.0.0.1", change, tunnel.Client(), tunnel.Peer(), want)
			}
		}
		one.Close()
		if r := g.report(); r.Client != "203.0.113.7" || r.Peer != "127.0.0.1" {
			t.Errorf("change %v: got client %q, peer %q in the report", change, r.Client, r.Peer)
		}
		two.Close()
		if location := g.get("/a/", from("203.0.113.7")...).Header.Get("Location"); location != "/a/x" {
			t.Errorf("change %v: got Location %q; want /a/x", change, location)
		}
	}
}

// TestHiddenClients: a client that its proxy hides is told from others by the
// identifier that the proxy gives it.
func TestHiddenClients(t *testing.T) {
	u := answering(t, switching())
	g := startGateway(t, &slipswitch.Proxy{TrustedProxies: loopback, Limits: slipswitch.Limits{TunnelsPerClient: 1}}, route("/a", u))
	for _, test := range []struct {
		id   string
		want int
	}{{"_a", 101}, {"_b", 101}, {"_a", 503}, {"unknown", 101}, {"unknown", 503}} {
		conn := g.dial()
		conn.send(handshake("/a", "Forwarded: for="+test.id))
		if a := conn.answer("GET"); a.StatusCode != test.want {
			t.Errorf("%s: got %s; want %d", test.id, a.Status, test.want)
		}
	}
	var clients []string
	for _, tunnel := range g.tunnels(3) {
		clients = append(clients, tunnel.Client())
	}
	if want := []string{"_a", "_b", "127.0.0.1"}; !slices.Equal(clients, want) {
		t.Errorf("got clients %q; want %q", clients, want)
	}
	// Of what is kept with a tunnel there is not more than fits.
	long := "_" + strings.Repeat("x", 64)
	if a := g.do(handshake("/a", "Forwarded: for="+long)); a.StatusCode != 503 { // as the proxy itself
		t.Errorf("got %s; want 503", a.Status)
	}
}

// TestUnixPeers have no address. They are trusted all together, or not; and
// those that are not are one client.
func TestUnixPeers(t *testing.T) {
	for _, trust := range []bool{false, true} {
		u := answering(t, switching())
		p := &slipswitch.Proxy{TrustUnix: trust, Limits: slipswitch.Limits{TunnelsPerClient: 1}}
		g := startGateway(t, p, route("/a", u))
		socket := filepath.Join(t.TempDir(), "s")
		listener, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go g.server.Serve(listener) // closed with the server
		open := func(client string) int {
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			fmt.Fprint(conn, handshake("/a", "X-Forwarded-For: "+client, "X-Forwarded-Proto: https"))
			status := make([]byte, len("HTTP/1.1 101"))
			conn.Read(status)
			var code int
			fmt.Sscanf(string(status), "HTTP/1.1 %d", &code)
			return code
		}
		got := []int{open("203.0.113.7"), open("203.0.113.8"), open("203.0.113.7")}
		want, client, said_ := []int{101, 503, 503}, "unknown", "unknown / unknown / http / ide.example.com / 80"
		if trust {
			want, client, said_ = []int{101, 101, 503}, "203.0.113.7", "203.0.113.7 / 203.0.113.7 / https / ide.example.com / 443"
		}
		if !slices.Equal(got, want) {
			t.Errorf("trusted %v: got %v; want %v", trust, got, want)
		}
		if tunnel := slices.Collect(g.Tunnels())[0]; tunnel.Client() != client || tunnel.Peer() != "unix" {
			t.Errorf("trusted %v: got client %q, peer %q; want %q, unix", trust, tunnel.Client(), tunnel.Peer(), client)
		}
		if got := said(u.all()[0].Header); got != said_ {
			t.Errorf("trusted %v: got %s; want %s", trust, got, said_)
		}
	}
	// A peer without an address is on a Unix socket only if the server says so.
	p := &slipswitch.Proxy{TrustUnix: true}
	remote := ""
	g := startHandler(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = remote
		if remote == "" {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, nil))
		}
		p.ServeHTTP(w, r)
	}))
	u := answering(t, ok(""))
	g.put(route("/a", u))
	for _, remote = range []string{"@", "/run/s", "", "192.0.2.7"} {
		g.get("/a", "X-Forwarded-For: 203.0.113.7")
		want := "unknown"
		if remote == "192.0.2.7" { // as some handlers around the Proxy leave it
			want = remote
		}
		if got := u.only().Header.Get("X-Real-Ip"); got != want {
			t.Errorf("RemoteAddr %q: got X-Real-IP %q; want %q", remote, got, want)
		}
	}
}
