package main_test

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

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
	programtest.Eventually(d, "last_activity is the POST's", func() bool { return !d.stamp("/user/a").Before(begin) })
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
	programtest.Eventually(d, "the route is active", func() bool { at = d.stamp("/inactive"); return time.Since(at) < time.Hour })
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

// Clients may encode a whole path as one segment: the slashes are the same.
func apiSlashes(d *driver) {
	d.rest(201, "POST", d.route("/slashes%2Fa%2fb"), fmt.Sprintf(`{"target":%q}`, d.target.url()))
	if got := d.data("/slashes/a/b")["target"]; got != d.target.url() {
		d.Errorf("got target %v; want %s", got, d.target.url())
	}
	if got, want := d.saw(d.get(200, "/slashes/a/b/c").body).URI, d.forwarded("/slashes/a/b", "/c"); got != want {
		d.Errorf("forwarded as %s; want %s", got, want)
	}
	d.rest(204, "DELETE", d.route("/slashes%2Fa/b"), "")
	d.rest(404, "GET", d.route("/slashes/a/b"), "")
}

func apiMuchData(d *driver) {
	much := strings.Repeat("much ", 40_000)
	d.rest(201, "POST", d.route("/much"), fmt.Sprintf(`{"target":%q,"much":%q}`, d.target.url(), much))
	if d.data("/much")["much"] != much {
		d.Errorf("%d bytes of data have not come back", len(much))
	}
	d.rest(204, "DELETE", d.route("/much"), "")
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
