package main_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/coder/websocket"
)

// everywhere are the checks that hold in every mode. Each has paths of its own.
func everywhere() []check {
	return []check{
		{"API: list, with and without slash", apiList},
		{"API: POST, GET, POST again, DELETE", apiRoute},
		{"API: / is a route", apiRoot},
		{"API: body not JSON", apiNotJSON},
		{"API: target missing", apiNoTarget},
		{"API: inactive_since", apiInactive},
		{"API: names with escapes", apiNames},
		{"API: escaped slashes", apiSlashes},
		{"API: much data", apiMuchData},
		{"API: other methods", apiMethods},
		{"API: other paths", apiOthers},
		{"API: token", apiToken},
		{"health", health},
		{"HTTP: forwarded unchanged", forwardsHTTP},
		{"HTTP: methods and bodies", forwardsBodies},
		{"HTTP: the longest route", longestRoute},
		{"HTTP: targets with a path", targetPath},
		{"HTTP: targets at sockets", targetSocket},
		{"HTTP: X-Forwarded", forwardedHeaders},
		{"HTTP: Location", location},
		{"HTTP: no route is 404", noRoute},
		{"HTTP: target down is 503", targetDown},
		{"WebSocket: forwarded", forwardsWebSocket},
		{"WebSocket: refusals are relayed", relaysRefusals},
		{"WebSocket: outlives its route", outlivesRoute},
		{"WebSocket: one side's end is the other's", endsTogether},
		{"last_activity", lastActivity},
		{"last_activity: deleted and put again", lastActivityOfPath},
	}
}

func health(d *driver) {
	got := d.get(200, "/_chp_healthz")
	if got.body != `{"status":"OK"}` || got.Header.Get("Content-Type") != "application/json" {
		d.Errorf("got %s %q", got.Header.Get("Content-Type"), got.body)
	}
	d.nothing("/_chp_healthz/x")
}

func forwardsHTTP(d *driver) {
	d.put("/http", d.target.url())
	for _, rest := range []string{"", "/", "/a/b", "/a%20b", "/%C3%BC", "/a%2Fb", "/a+b,c;d=e:f@g!$&'()*", "//double", "?", "?a=1&b=%20+c&a=2", "/x?y=/z?&=", "/%7Etilde/~tilde", "/100%25"} {
		got := d.saw(d.get(200, "/http"+rest, "X-Test", "as it is", "Cookie", "a=1; b=2", "Accept-Encoding", "br").body)
		want := d.forwarded("/http", rest)
		if !d.real && d.noPrefix {
			want = strings.Replace(want, "//", "/", 1) // where nothing is left in front, "//x" would name a host
		}
		if got.URI != want && got.URI+"?" != want { // an empty query may go
			d.Errorf("%q: forwarded as %q; want %q", rest, got.URI, want)
		}
		if got.Header.Get("X-Test") != "as it is" || got.Header.Get("Cookie") != "a=1; b=2" || got.Header.Get("Accept-Encoding") != "br" {
			d.Errorf("got header %v", got.Header)
		}
	}
	d.get(200, "/./http") // and no redirect
	want := host
	if d.changeOrigin {
		want = d.target.host()
	}
	if got := d.saw(d.get(200, "/http/").body).Host; got != want {
		d.Errorf("got Host %q; want %q", got, want)
	}
	for name, value := range d.header {
		if got := d.saw(d.get(200, "/http/", name, "the client's").body).Header[name]; len(got) != 1 || got[0] != value {
			d.Errorf("got %s %q; want %q", name, got, value)
		}
	}
}

func forwardsBodies(d *driver) {
	d.put("/bodies", d.target.url())
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		if got := d.saw(d.send(200, method, "/bodies/x", "a body").body); got.Method != method || got.Body != "a body" {
			d.Errorf("got %s %q; want %s with its body", got.Method, got.Body, method)
		}
	}
	large := strings.Repeat("x", 3<<20)
	if got := d.saw(d.send(200, "POST", "/bodies/x", large).body).Body; got != large {
		d.Errorf("got %d bytes; want %d", len(got), len(large))
	}
	if got := d.send(200, "HEAD", "/bodies/x", ""); got.Header.Get("Content-Type") != "application/json" || got.body != "" {
		d.Errorf("HEAD: got %v %q", got.Header, got.body)
	}
}

func longestRoute(d *driver) {
	d.put("/long", d.target.url())
	d.put("/long/er", d.second.url())
	for path, want := range map[string]string{
		"/long": "first", "/long/": "first", "/long/e": "first", "/long/erx": "first", "/long/x/er": "first",
		"/long/er": "second", "/long/er/": "second", "/long/er/x": "second", "/long/%65r": "second",
	} {
		if got := d.saw(d.get(200, path).body).Name; got != want {
			d.Errorf("GET %s: by the %s target; want the %s", path, got, want)
		}
	}
	d.nothing("/longer")
}

func targetPath(d *driver) {
	base := "/base"
	if d.noPrepend {
		base = ""
	}
	for _, slash := range []string{"", "/"} {
		d.put("/based", d.target.url()+"/base"+slash)
		if got := d.data("/based")["target"]; got != d.target.url()+"/base"+slash {
			d.Errorf("got target %v; want it as it was put", got)
		}
		if got, want := d.saw(d.get(200, "/based/x?y").body).URI, base+d.forwarded("/based", "/x?y"); got != want {
			d.Errorf("forwarded as %s; want %s", got, want)
		}
	}
	_, saw := d.dial("/based/ws")
	if want := base + d.forwarded("/based", "/ws"); saw.URI != want {
		d.Errorf("WebSocket forwarded as %s; want %s", saw.URI, want)
	}
}

func targetSocket(d *driver) {
	u := startTarget(d, "socket", filepath.Join(d.TempDir(), "s"), false)
	for _, target := range []string{u.url(), strings.Replace(u.url(), "http+unix", "unix+http", 1)} {
		d.put("/socket", target)
		if got := d.data("/socket")["target"]; got != target {
			d.Errorf("got target %v; want %s as it was put", got, target)
		}
		if got := d.saw(d.get(200, "/socket/x?y").body); got.Name != "socket" || got.URI != d.forwarded("/socket", "/x?y") {
			d.Errorf("got %+v", got)
		}
		conn, _ := d.dial("/socket/ws")
		d.talk(conn, "x")
	}
}

func forwardedHeaders(d *driver) {
	d.put("/forwarded", d.target.url())
	proto, port := "http", "80"
	if d.tls != nil {
		proto, port = "https", "443"
	}
	client := "127.0.0.1"
	want := map[string]string{"X-Forwarded-For": client, "X-Forwarded-Proto": proto, "X-Forwarded-Port": port, "X-Forwarded-Host": host}
	said := []string{"X-Forwarded-For", "10.1.2.3", "X-Forwarded-Proto", "gopher", "X-Forwarded-Port", "70", "X-Forwarded-Host", "a.example", "X-Real-Ip", "10.4.5.6", "Forwarded", "for=10.7.8.9", "True-Client-Ip", "10.1.1.1", "X-Scheme", "gopher"}
	check := func(what string, got http.Header, want map[string]string) {
		d.Helper()
		for name, value := range want {
			if name == "X-Forwarded-For" && d.sockets {
				continue // who asks by a socket has no address
			}
			if got.Get(name) != value {
				d.Errorf("%s: got %s %q; want %q", what, name, got[name], value)
			}
		}
	}
	if d.noForward {
		got := d.saw(d.get(200, "/forwarded/").body).Header
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Host", "X-Real-Ip"} {
			if got[name] != nil {
				d.Errorf("got %s %q; want none", name, got[name])
			}
		}
		want = map[string]string{"X-Forwarded-For": "10.1.2.3", "X-Forwarded-Proto": "gopher", "X-Forwarded-Port": "70"}
		check("the client's own", d.saw(d.get(200, "/forwarded/", said...).body).Header, want)
		return
	}
	check("none before", d.saw(d.get(200, "/forwarded/").body).Header, want)
	check("with a port", d.saw(d.get(200, "/forwarded/", "Host", host+":8443").body).Header, map[string]string{"X-Forwarded-Port": "8443", "X-Forwarded-Host": host + ":8443"})
	check("behind others", d.saw(d.get(200, "/forwarded/", said...).body).Header, map[string]string{
		"X-Forwarded-For": "10.1.2.3," + client, "X-Forwarded-Proto": "gopher," + proto, "X-Forwarded-Port": "70," + port,
		"X-Forwarded-Host": "a.example", "X-Real-Ip": "10.4.5.6", "Forwarded": "for=10.7.8.9", "True-Client-Ip": "10.1.1.1", "X-Scheme": "gopher",
	})
	_, saw := d.dial("/forwarded/ws")
	proto = strings.Replace(proto, "http", "ws", 1)
	check("WebSocket", saw.Header, map[string]string{"X-Forwarded-For": client, "X-Forwarded-Proto": proto, "X-Forwarded-Port": port})
}

func location(d *driver) {
	d.put("/location", d.target.url())
	own := "http://" + d.target.host()
	scheme, at := "http", d.target.host()
	if d.autoRewrite {
		at = host
		if _, port, _ := strings.Cut(d.target.host(), ":"); d.real {
			at += ":" + port // known: of a Host without port it takes the name alone
		}
	}
	if d.protocolRewrite != "" {
		scheme = d.protocolRewrite
	}
	told := map[string]string{
		own + "/x?y=%20z":           scheme + "://" + at + "/x?y=%20z",
		"http://other.example/x":    "http://other.example/x",
		"http://127.0.0.1:1/x":      "http://127.0.0.1:1/x",
		"/relative":                 "/relative",
		"relative?x":                "relative?x",
		"//" + d.target.host() + "": "//" + d.target.host(),
	}
	for told, want := range told {
		for _, status := range []int{201, 301, 302, 307, 308} {
			if got := d.get(status, "/location/", "X-Do", fmt.Sprint(status, " ", told)).Header.Get("Location"); got != want && !(status == 201 && got == "") {
				d.Errorf("%d to %s: got %s; want %s", status, told, got, want)
			}
		}
	}
	if got := d.get(303, "/location/", "X-Do", "303 "+own+"/x").Header.Get("Location"); got != own+"/x" {
		d.Errorf("303: got %s; want it as it was", got)
	}
	for told, want := range told {
		_, response, err := d.tryDial("/location/ws", "X-Do", "307 "+told)
		if err == nil || response == nil || response.StatusCode != 307 || response.Header.Get("Location") != want {
			d.Errorf("WebSocket, 307 to %s: got %v, %v; want %s", told, response, err, want)
		}
	}
}

func noRoute(d *driver) {
	if d.withDefault {
		d.nothing("/nothing/here")
		return
	}
	got := d.get(404, "/nothing/here")
	if !d.ownErrors && !strings.HasPrefix(got.Header.Get("Content-Type"), "text/html") {
		d.Errorf("got %s %q; want a page", got.Header.Get("Content-Type"), got.body)
	}
	_, response, err := d.tryDial("/nothing/here")
	if err == nil || response == nil || response.StatusCode != 404 {
		d.Errorf("WebSocket: got %v, %v; want 404", response, err)
	}
}

func targetDown(d *driver) {
	gone := startTarget(d, "gone", "", false)
	d.put("/down", gone.url())
	gone.Close()
	d.get(503, "/down/")
	d.send(503, "POST", "/down/", "a body")
	_, response, err := d.tryDial("/down/ws")
	if err == nil || response == nil || response.StatusCode != 503 {
		d.Errorf("WebSocket: got %v, %v; want 503", response, err)
	}
}

func forwardsWebSocket(d *driver) {
	d.put("/ws", d.target.url())
	conn, saw := d.dial("/ws/a%20b?c=%64", "X-Test", "as it is", "Origin", "http://"+host)
	want := host
	if d.changeOrigin {
		want = d.target.host()
	}
	if saw.URI != d.forwarded("/ws", "/a%20b?c=%64") || saw.Host != want || saw.Header.Get("X-Test") != "as it is" || saw.Header.Get("Origin") != "http://"+host {
		d.Errorf("got %+v", saw)
	}
	for name, value := range d.header {
		if got := saw.Header[name]; len(got) != 1 || got[0] != value {
			d.Errorf("got %s %q; want %q", name, got, value)
		}
	}
	if got := conn.Subprotocol(); got != "two" {
		d.Errorf("got subprotocol %q; want two", got)
	}
	for _, message := range []string{"", "x", strings.Repeat("y", 30000)} {
		d.talk(conn, message)
	}
	conn.Close(4000, "done")
}

func relaysRefusals(d *driver) {
	d.put("/refused", d.target.url())
	for _, status := range []int{401, 403, 426, 500} {
		_, response, err := d.tryDial("/refused/ws", "X-Do", fmt.Sprint(status))
		if err == nil || response == nil || response.StatusCode != status {
			d.Errorf("got %v, %v; want %d", response, err, status)
			continue
		}
		if body, _ := io.ReadAll(response.Body); string(body) != "as told" {
			d.Errorf("got body %q", body)
		}
	}
}

func outlivesRoute(d *driver) {
	d.put("/outlives", d.target.url())
	conn, _ := d.dial("/outlives/ws")
	d.talk(conn, "before")
	d.put("/outlives", d.second.url())
	d.talk(conn, "replaced")
	d.put("/outlives/ws", d.second.url())
	d.talk(conn, "a longer one")
	d.rest(204, "DELETE", d.route("/outlives"), "")
	d.rest(204, "DELETE", d.route("/outlives/ws"), "")
	d.talk(conn, "deleted")
	d.nothing("/outlives/")
	d.put("/outlives", d.second.url())
	d.talk(conn, "put again")
	if got := d.saw(d.get(200, "/outlives/").body).Name; got != "second" {
		d.Errorf("by the %s target; want the second", got)
	}
}

func endsTogether(d *driver) {
	d.put("/ends", d.target.url())
	conn, _ := d.dial("/ends/ws")
	conn.Write(d.Context(), websocket.MessageText, []byte("close"))
	if code := d.ends(conn); code != 4001 {
		d.Errorf("got close code %d; want the target's, 4001", code)
	}
	conn, _ = d.dial("/ends/ws")
	conn.Write(d.Context(), websocket.MessageText, []byte("cut"))
	if code := d.ends(conn); code != -1 {
		d.Errorf("got close code %d; want the connection's end alone", code)
	}
}
