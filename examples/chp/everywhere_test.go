package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

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

func apiList(d *driver) {
	d.put("/list", d.target.url())
	name := strings.TrimPrefix(d.route("/list"), "/api/routes")
	for _, slash := range []string{"", "/"} {
		if got := d.list(slash)[name]["target"]; got != d.target.url() {
			d.Errorf("GET /api/routes%s: got target %v of %s; want %s", slash, got, name, d.target.url())
		}
	}
}

func apiRoute(d *driver) {
	empty := func(a answer) {
		d.Helper()
		if a.body != "" {
			d.Errorf("got body %q; want none", a.body)
		}
	}
	path := d.route("/user/a")
	empty(d.rest(404, "GET", path, ""))
	empty(d.rest(404, "DELETE", path, ""))
	begin := time.Now().Truncate(time.Millisecond)
	empty(d.rest(201, "POST", path, fmt.Sprintf(
		`{"target":%q,"user":"a","server_name":"","jupyterhub":true,"n":[1,{"x":null}],"last_activity":"2000-01-01T00:00:00.000Z"}`, d.target.url())))
	data := d.data("/user/a")
	if data["target"] != d.target.url() || data["user"] != "a" || data["server_name"] != "" || data["jupyterhub"] != true || fmt.Sprint(data["n"]) != "[1 map[x:<nil>]]" {
		d.Errorf("got %v; want all as it was put", data)
	}
	eventually(d, "last_activity is the POST's", func() bool { return !d.stamp("/user/a").Before(begin) })
	empty(d.rest(404, "GET", path+"/below", ""))
	empty(d.rest(404, "GET", d.route("/user"), ""))
	empty(d.rest(201, "POST", path+"/", fmt.Sprintf(`{"target":%q,"other":1}`, d.second.url())))
	data = d.data("/user/a")
	if data["target"] != d.second.url() || data["other"] != 1.0 || data["user"] != nil || data["jupyterhub"] != nil {
		d.Errorf("got %v; want all replaced", data)
	}
	empty(d.rest(204, "DELETE", path, ""))
	empty(d.rest(404, "DELETE", path, ""))
	empty(d.rest(404, "GET", path, ""))
}

func apiRoot(d *driver) {
	before := d.list("")["/"]
	d.rest(201, "POST", "/api/routes", fmt.Sprintf(`{"target":%q}`, d.target.url()))
	if got := d.list("")["/"]["target"]; got != d.target.url() {
		d.Errorf("got target %v of /; want %s", got, d.target.url())
	}
	if got := d.saw(d.get(200, "/no-other-route").body).URI; got != "/no-other-route" {
		d.Errorf("got %s", got)
	}
	d.rest(204, "DELETE", "/api/routes/", "")
	if d.get(404, "/no-other-route"); before != nil {
		d.rest(201, "POST", "/api/routes", fmt.Sprintf(`{"target":%q}`, before["target"]))
	}
}

func apiNotJSON(d *driver) {
	for _, body := range []string{"", "{", `{"target": http://127.0.0.1}`, "a=b"} {
		if got := d.rest(400, "POST", d.route("/invalid"), body); !strings.HasPrefix(got.body, "Body not valid JSON: ") {
			d.Errorf("got %q", got.body)
		}
	}
	d.rest(404, "GET", d.route("/invalid"), "")
}

func apiNoTarget(d *driver) {
	for _, body := range []string{"{}", `{"target":null}`, `{"target":1}`, `{"target":["http://127.0.0.1:9"]}`, `{"Target":"http://127.0.0.1:9"}`, `[]`, `null`, `"x"`} {
		if got := d.rest(400, "POST", d.route("/invalid"), body); got.body != "Must specify 'target' as string" {
			d.Errorf("%s: got %q", body, got.body)
		}
	}
	d.rest(404, "GET", d.route("/invalid"), "")
}

func apiInactive(d *driver) {
	d.put("/inactive", d.target.url())
	name := strings.TrimPrefix(d.route("/inactive"), "/api/routes")
	var at time.Time
	eventually(d, "the route is active", func() bool { at = d.stamp("/inactive"); return time.Since(at) < time.Hour })
	for _, parameter := range []string{"inactive_since", "inactiveSince"} {
		for value, want := range map[string]bool{
			at.Format("2006-01-02T15:04:05.000Z"):                       false,
			at.Add(time.Millisecond).Format("2006-01-02T15:04:05.000Z"): true,
			"2100-01-01": true,
			url.QueryEscape(at.Add(time.Second).In(time.FixedZone("", 5400)).Format("2006-01-02T15:04:05.000-07:00")): true,
			"": true,
		} {
			if got := d.list("?" + parameter + "=" + value)[name] != nil; got != want {
				d.Errorf("%s=%s: shown %v; want %v", parameter, value, got, want)
			}
		}
		for _, value := range []string{"x", "endoftheworld", "2026-13-01"} {
			got := d.rest(400, "GET", "/api/routes?"+parameter+"="+value, "")
			if want := fmt.Sprintf("Invalid datestamp '%s' must be ISO8601.", value); got.body != want {
				d.Errorf("got %q; want %q", got.body, want)
			}
		}
	}
}

// Users' names bring everything into paths.
func apiNames(d *driver) {
	for escaped, name := range map[string]string{
		"/user/a@b.org":              "/user/a@b.org",
		"/user/c%40d.org":            "/user/c@d.org",
		"/user/with%20space":         "/user/with space",
		"/user/%C3%BCmit":            "/user/ümit",
		"/user/%E5%BE%90/server%2B1": "/user/徐/server+1",
		"/user/100%25":               "/user/100%",
		"/user/q%3Fmark":             "/user/q?mark",
		"/user/slash/":               "/user/slash",
	} {
		path := d.route(escaped)
		d.rest(201, "POST", path, fmt.Sprintf(`{"target":%q,"name":%q}`, d.target.url(), name))
		shown := name
		if d.hostRouting {
			shown = "/" + host + name
		}
		if got := d.list("")[shown]["name"]; got != name {
			d.Errorf("POST %s: %q is not in the list", path, shown)
		}
		raw := strings.TrimSuffix(escaped, "/")
		got, want := d.saw(d.get(200, raw+"/x").body).URI, d.forwarded(raw, "/x")
		if d.real && d.noPrefix && raw != name {
			if got == want {
				d.Errorf("GET %s/x: forwarded as %s; it is known to cut the length of the unescaped name off the escaped one", raw, got)
			}
		} else if got != want {
			d.Errorf("GET %s/x: forwarded as %s; want %s", raw, got, want)
		}
		d.rest(200, "GET", path, "")
		d.rest(204, "DELETE", path, "")
	}
}

func apiMethods(d *driver) {
	d.put("/methods", d.target.url())
	for _, method := range []string{"PUT", "PATCH", "OPTIONS"} {
		for _, path := range []string{"/api/routes", d.route("/methods")} {
			if got := d.rest(405, method, path, ""); got.body != "Method not supported" {
				d.Errorf("%s: got %q", method, got.body)
			}
		}
	}
	d.rest(405, "HEAD", d.route("/methods"), "")
}

func apiOthers(d *driver) {
	for _, path := range []string{"/", "/api", "/api/route", "/api/routesx", "/v1/routes", "/v1/status", "/readyz", "/metrics"} {
		if got := d.rest(404, "GET", path, ""); got.body != "Not Found" {
			d.Errorf("GET %s: got %q", path, got.body)
		}
	}
}

func apiToken(d *driver) {
	if d.token == "" {
		for _, header := range []map[string]string{nil, {"Authorization": "token x"}} {
			if got, err := d.ask(d.api, "GET", "/api/routes", "", header); err != nil || got.StatusCode != 200 {
				d.Errorf("%v: got %v, %v; want an open API", header, got.Response, err)
			}
		}
		return
	}
	for _, header := range []map[string]string{nil, {"Authorization": "token x"}, {"Authorization": "token"}, {"Authorization": d.token}, {"Authorization": "token " + d.token + "x"}} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			got, err := d.ask(d.api, method, d.route("/token"), fmt.Sprintf(`{"target":%q}`, d.target.url()), header)
			if err != nil || got.StatusCode != 403 || got.body != "" {
				d.Errorf("%s with %v: got %v %q, %v; want 403, empty", method, header, got.Response, got.body, err)
			}
		}
	}
	d.rest(404, "GET", d.route("/token"), "")
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
	said := []string{"X-Forwarded-For", "10.1.2.3", "X-Forwarded-Proto", "gopher", "X-Forwarded-Port", "70", "X-Forwarded-Host", "a.example", "X-Real-Ip", "10.4.5.6", "Forwarded", "for=10.7.8.9"}
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
		"X-Forwarded-Host": "a.example", "X-Real-Ip": "10.4.5.6", "Forwarded": "for=10.7.8.9",
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
	for told, want := range map[string]string{
		own + "/x?y=%20z":           scheme + "://" + at + "/x?y=%20z",
		"http://other.example/x":    "http://other.example/x",
		"http://127.0.0.1:1/x":      "http://127.0.0.1:1/x",
		"/relative":                 "/relative",
		"relative?x":                "relative?x",
		"//" + d.target.host() + "": "//" + d.target.host(),
	} {
		for _, status := range []int{201, 301, 302, 307, 308} {
			if got := d.get(status, "/location/", "X-Do", fmt.Sprint(status, " ", told)).Header.Get("Location"); got != want && !(status == 201 && got == "") {
				d.Errorf("%d to %s: got %s; want %s", status, told, got, want)
			}
		}
	}
	if got := d.get(303, "/location/", "X-Do", "303 "+own+"/x").Header.Get("Location"); got != own+"/x" {
		d.Errorf("303: got %s; want it as it was", got)
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

// moves says whether what do does moves last_activity of a route.
func (d *driver) moves(path, what string, want bool, do func()) {
	d.Helper()
	was := d.stamp(path)
	for start := time.Now(); time.Since(start) < 3*time.Millisecond; { // stamps have steps
		time.Sleep(time.Millisecond)
	}
	do()
	if want {
		eventually(d, what+" moves last_activity", func() bool { return d.stamp(path).After(was) })
	} else if now := d.stamp(path); now.After(was) {
		d.Errorf("%s has moved last_activity from %v to %v", what, was, now)
	}
}

func lastActivity(d *driver) {
	const path = "/active"
	d.put(path, d.target.url())
	d.moves(path, "a look at it", false, func() { d.list("") })
	d.moves(path, "the same POST", true, func() { d.put(path, d.target.url()) })
	d.moves(path, "a request", true, func() { d.get(200, path+"/") })
	d.moves(path, "a POST", true, func() { d.send(200, "POST", path+"/", "a body") })
	for _, status := range []int{302, 404, 403, 500} {
		d.moves(path, fmt.Sprintf("the answer %d", status), false, func() { d.get(status, path+"/", "X-Do", fmt.Sprint(status)) })
	}
	reader, writer := io.Pipe()
	r, _ := http.NewRequestWithContext(d.Context(), "POST", d.public.url(path+"/"), reader)
	r.Host = host
	uploaded := make(chan error)
	go func() {
		response, err := d.public.client().Do(r)
		if err == nil {
			response.Body.Close()
		}
		uploaded <- err
	}()
	for range 3 {
		d.moves(path, "a part of an upload", true, func() { io.WriteString(writer, "part") })
	}
	writer.Close()
	if err := <-uploaded; err != nil {
		d.Error(err)
	}
	conn, _ := d.dial(path + "/ws")
	d.moves(path, "a message", true, func() { d.talk(conn, "x") })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d.moves(path, "a ping", true, func() {
		reading := conn.CloseRead(ctx) // its goroutine takes the pong
		if err := conn.Ping(reading); err != nil {
			d.Error(err)
		}
	})
	gone := startTarget(d, "gone", "", false)
	d.put(path+"/down", gone.url())
	gone.Close()
	d.moves(path+"/down", "a target that is down", false, func() { d.get(503, path+"/down") })
}

// A tunnel is at its route's path, whatever route stands there.
func lastActivityOfPath(d *driver) {
	const path = "/active-path"
	d.put(path, d.target.url())
	conn, _ := d.dial(path + "/ws")
	d.rest(204, "DELETE", d.route(path), "")
	d.talk(conn, "nobody counts this")
	d.put(path, d.second.url())
	d.moves(path, "a message, deleted and put again", true, func() { d.talk(conn, "x") })
	d.put(path, d.target.url())
	d.moves(path, "a message, replaced", true, func() { d.talk(conn, "x") })
}
