package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

const target = `{"target":"http://127.0.0.1:9"}`

// paths returns the paths that GET /api/routes shows, in order.
func (s *server) paths(query string) []string {
	s.t.Helper()
	shown := decode[map[string]map[string]any](s.t, s.want(200, "GET", "/api/routes"+query, ""))
	paths := []string{}
	for path := range shown {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

func TestCHP(t *testing.T) {
	s := serve(t, &admin.Handler{})
	empty := func(a answer) {
		t.Helper()
		if a.body != "" {
			t.Errorf("got body %q; want none", a.body)
		}
	}
	// An empty list, with and without the slash.
	for _, list := range []string{"/api/routes", "/api/routes/"} {
		got := s.want(200, "GET", list, "")
		if got.body != "{}" || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("GET %s: got %s %q; want {}", list, got.header.Get("Content-Type"), got.body)
		}
	}
	// POST adds, and replaces all of the route's data.
	begin := time.Now().Truncate(time.Millisecond)
	empty(s.want(201, "POST", "/api/routes", target))
	empty(s.want(201, "POST", "/api/routes/user/a", `{"target":"http://127.0.0.1:9/x","user":"a","server_name":"","jupyterhub":true,"n":1.50,"last_activity":"2000-01-01T00:00:00.000Z"}`))
	got := s.want(200, "GET", "/api/routes/user/a", "")
	data := decode[map[string]json.RawMessage](t, got)
	for key, want := range map[string]string{"target": `"http://127.0.0.1:9/x"`, "user": `"a"`, "server_name": `""`, "jupyterhub": "true", "n": "1.50"} {
		if string(data[key]) != want {
			t.Errorf("got %s of %s; want %s", data[key], got.body, want)
		}
	}
	var stamp string
	json.Unmarshal(data["last_activity"], &stamp)
	at, err := time.Parse("2006-01-02T15:04:05.000Z", stamp)
	if err != nil || at.Before(begin) || at.After(time.Now()) || len(data) != 6 {
		t.Errorf("got %s; want now as last_activity, and nothing else", got.body)
	}
	if entry, _ := s.router.Table().At(slipswitch.Key{Path: "/user/a"}); string(entry.Route().Meta) != `{"jupyterhub":true,"n":1.50,"server_name":"","user":"a"}` {
		t.Errorf("got Meta %s", entry.Route().Meta)
	}
	s.want(201, "POST", "/api/routes/user/a/", `{"target":"http://127.0.0.1:8","hub":true}`)
	got = s.want(200, "GET", "/api/routes/user/a/", "")
	if data := decode[map[string]any](t, got); len(data) != 3 || data["hub"] != true || data["target"] != "http://127.0.0.1:8" {
		t.Errorf("replaced: got %s", got.body)
	}
	if got, want := s.paths(""), []string{"/", "/user/a"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
	// Exact routes only: neither what is above nor what is below.
	empty(s.want(404, "GET", "/api/routes/user", ""))
	empty(s.want(404, "GET", "/api/routes/user/a/b", ""))
	empty(s.want(404, "DELETE", "/api/routes/user", ""))
	empty(s.want(204, "DELETE", "/api/routes/user/a/", ""))
	empty(s.want(404, "DELETE", "/api/routes/user/a", ""))
	// DELETE of the route /.
	empty(s.want(204, "DELETE", "/api/routes", ""))
	empty(s.want(404, "DELETE", "/api/routes/", ""))
	// Routes are those of owner chp.
	s.want(201, "POST", "/api/routes/a", target)
	if entry, ok := s.router.Table().At(slipswitch.Key{Path: "/a"}); !ok || entry.Owner != "chp" || entry.Route().StripPath {
		t.Errorf("got %+v", entry)
	}
	for request, want := range map[string]string{
		"PUT /api/routes/a":   "405 Method not supported",
		"PATCH /api/routes":   "405 Method not supported",
		"HEAD /api/routes":    "405 ",
		"OPTIONS /api/routes": "405 Method not supported",
		"GET /api/route":      "404 Not Found: begin at /v1/routes, /v1/tunnels, /v1/closes or /v1/status",
		"POST /api/routesx":   "404 Not Found: begin at /v1/routes, /v1/tunnels, /v1/closes or /v1/status",
		"GET /":               "404 Not Found: begin at /v1/routes, /v1/tunnels, /v1/closes or /v1/status",
	} {
		method, path, _ := strings.Cut(request, " ")
		got := s.do(method, path, "")
		if text := fmt.Sprint(got.status, " ", got.body); text != want {
			t.Errorf("%s: got %s; want %s", request, text, want)
		}
	}
}

func TestCHPBodies(t *testing.T) {
	s := serve(t, &admin.Handler{MaxBody: 1000})
	for _, test := range []struct {
		body   string
		status int
		want   string
	}{
		{target, 201, ""},
		{" \n" + target + "\n", 201, ""},
		{`{"target":"https://[::1]:8888/base"}`, 201, ""},
		{`{"target":"http://h","x":{"a":[1,null,"ü"]},"__proto__":{"x":1},"constructor":2}`, 201, ""},
		{``, 400, "Body not valid JSON: "},
		{`target=http://h`, 400, "Body not valid JSON: "},
		{`{"target":"http://h"`, 400, "Body not valid JSON: "},
		{target + `x`, 400, "Body not valid JSON: "},
		{`{"target":"http://h","target":"http://i"}`, 400, "Body not valid JSON: "},
		{`{"target":"http://h","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, 400, "Body not valid JSON: "},
		{"{\"target\":\"http://h\",\"x\":\"\xff\"}", 400, "Body not valid JSON: "},
		{`{}`, 400, "Must specify 'target' as string"},
		{`{"Target":"http://h"}`, 400, "Must specify 'target' as string"},
		{`{"target":5}`, 400, "Must specify 'target' as string"},
		{`{"target":null}`, 400, "Must specify 'target' as string"},
		{`{"target":["http://h"]}`, 400, "Must specify 'target' as string"},
		{`null`, 400, "Must specify 'target' as string"},
		{`[]`, 400, "Must specify 'target' as string"},
		{`"http://h"`, 400, "Must specify 'target' as string"},
		{`{"target":""}`, 400, `target "" must begin with http://, https://`},
		{`{"target":"h:1"}`, 400, `target "h:1" must begin with http://, https://`},
		{`{"target":"http://"}`, 400, `target "http://" must name a host`},
		{`{"target":"http://h:0"}`, 400, `target "http://h:0" must have a port from 1 to 65535`},
		{`{"target":"http://a b"}`, 400, `target "http://a b" must be a URL`},
		{`{"target":"http://u:p@h"}`, 400, `must not contain a user`},
		{`{"target":"javascript:alert(1)"}`, 400, `must begin with http://, https://`},
		{`{"target":"http+unix://%2Ftmp%2Fsock"}`, 201, ""},
		{`{"target":"unix+http://%2Ftmp%2Fsock/"}`, 201, ""},
		{`{"target":"http+unix://%2Ftmp%2Fsock/base"}`, 400, `nothing behind it`},
		{`{"target":"http+unix:///tmp/sock"}`, 400, `nothing behind it`},
		{`{"target":"http+unix://%zz"}`, 400, `percent-encoded`},
		{`{"target":"http+unix://sock"}`, 400, `absolute path`},
		{`{"target":"http://h","x":"` + strings.Repeat("x", 1000) + `"}`, 413, `at most 1000 bytes`},
	} {
		s.do("DELETE", "/api/routes/a", "")
		got := s.do("POST", "/api/routes/a", test.body)
		if got.status != test.status || !strings.HasPrefix(got.body, test.want) && !strings.Contains(got.body, test.want) || test.want == "" && got.body != "" {
			t.Errorf("%.100s: got %d %q; want %d %q", test.body, got.status, got.body, test.status, test.want)
		}
		if is := s.do("GET", "/api/routes/a", "").status; (is == 200) != (test.status == 201) {
			t.Errorf("%.100s: GET then answers %d", test.body, is)
		}
	}
	// The type of the body does not matter.
	for _, kind := range []string{"", "application/x-www-form-urlencoded", "text/plain", "x", "multipart/form-data"} {
		s.want(201, "POST", "/api/routes/kind", target, "Content-Type: "+kind)
	}
	// Names that mean something to JavaScript.
	for _, name := range []string{"constructor", "__proto__", "toString", "hasOwnProperty/x"} {
		s.want(404, "GET", "/api/routes/"+name, "")
		s.want(201, "POST", "/api/routes/"+name, target)
		s.want(200, "GET", "/api/routes/"+name, "")
		s.want(204, "DELETE", "/api/routes/"+name, "")
	}
	// A limit of the body, nearly all of which may be data.
	s = serve(t, &admin.Handler{})
	for _, size := range []int{200_000, 1<<20 - 1000} {
		x := strings.Repeat("x", size)
		s.want(201, "POST", "/api/routes/a", `{"target":"http://h","x":"`+x+`"}`)
		if got := decode[map[string]any](t, s.want(200, "GET", "/api/routes/a", "")); got["x"] != x {
			t.Errorf("%d bytes of data have not come back", size)
		}
	}
	s.want(413, "POST", "/api/routes/a", `{"target":"http://h","x":"`+strings.Repeat("x", 1<<20)+`"}`)
	if got := s.want(400, "POST", "/api/routes/"+strings.Repeat("x", 2049), target); !strings.Contains(got.body, "must be at most 2048 bytes long") {
		t.Errorf("got %.200s", got.body)
	}
}

// Paths are unescaped for storage, and shown unescaped; all spellings of a path
// are one route. JupyterHub escapes what is shown, with @ ~ and / left, and
// compares that with what it has posted.
func TestCHPPaths(t *testing.T) {
	for _, test := range []struct {
		posted string
		same   []string // other spellings
		shown  string
		other  []string // other routes
	}{
		{"/user/a@b.c", []string{"/user/a%40b.c", "/user/%61%40b%2Ec/", "/us%65r/a@b.c"}, "/user/a@b.c", []string{"/user/a%2540b.c"}},
		{"/user/a%2540b", []string{"/user/a%25%340b"}, "/user/a%40b", []string{"/user/a@b"}},
		{"/user/a%20b", []string{"/user/a%20b/"}, "/user/a b", []string{"/user/a+b", "/user/a%2520b"}},
		{"/user/%C3%BC%E2%82%AC%F0%9F%98%80", []string{"/user/%c3%bc%e2%82%ac%f0%9f%98%80"}, "/user/ü€😀", nil},
		{"/user/50%25", nil, "/user/50%", []string{"/user/50"}},
		{"/user/a%3Fb%23c%5Cd%22e%3Ce%3E", nil, `/user/a?b#c\d"e<e>`, nil},
		{"/user/a%2Fb", []string{"/user%2fa/b", "/user/a/b", "/user%2Fa%2Fb%2F"}, "/user/a/b", []string{"/user/a%252Fb"}},
		{"/user/a%252Fb", nil, "/user/a%2Fb", []string{"/user/a%2Fb", "/user/a/b"}},
		{"//x", nil, "//x", []string{"/x"}},
		{"/a//b", nil, "/a//b", []string{"/a/b"}},
		{"/a;b=c,d&e$f!g'h(i)j*k+l:m~", nil, "/a;b=c,d&e$f!g'h(i)j*k+l:m~", nil},
		{"/a%0Ab%7F", nil, "/a\nb\x7f", nil},
	} {
		s := serve(t, &admin.Handler{})
		s.want(201, "POST", "/api/routes"+test.posted, target)
		version := s.router.Table().Version()
		for _, path := range append(test.same, test.posted) {
			s.want(200, "GET", "/api/routes"+path, "")
			s.want(201, "POST", "/api/routes"+path, target)
		}
		if got := s.router.Table().Version(); got != version {
			t.Errorf("%s: another spelling changed the table", test.posted)
		}
		for _, path := range test.other {
			s.want(404, "GET", "/api/routes"+path, "")
			s.want(404, "DELETE", "/api/routes"+path, "")
		}
		if got := s.paths(""); !slices.Equal(got, []string{test.shown}) {
			t.Errorf("%s: shown as %q; want %q", test.posted, got, test.shown)
		}
		if last := append(test.same, test.posted)[0]; s.do("DELETE", "/api/routes"+last, "").status != 204 {
			t.Errorf("%s: cannot be deleted as %s", test.posted, last)
		}
	}
	s := serve(t, &admin.Handler{})
	for _, path := range []string{"/a/%2e%2e/b", "/..", "/a%00b", "/%FF", "/a/%E2%82"} {
		if got := s.do("POST", "/api/routes"+path, target); got.status != 400 || !strings.Contains(got.body, "path") {
			t.Errorf("POST %s: got %d %q; want 400 and why", path, got.status, got.body)
		}
		if got := s.do("GET", "/api/routes"+path, ""); got.status != 404 && got.status != 400 {
			t.Errorf("GET %s: got %d; want 404 or 400", path, got.status)
		}
		if got := s.do("DELETE", "/api/routes"+path, ""); got.status != 404 && got.status != 400 {
			t.Errorf("DELETE %s: got %d; want 404 or 400", path, got.status)
		}
	}
	auth := "Authorization: token " + token
	// Bytes that should have been escaped, but were not, next to some that were.
	if got := s.raw(head(`POST /api/routes/a%2F"<ü>`, auth, fmt.Sprint("Content-Length: ", len(target))) + target); got.status != 201 {
		t.Errorf("got %d %q; want 201", got.status, got.body)
	}
	s.want(404, "DELETE", "/api/routes/a%252F%22%3C%C3%BC%3E", "")
	s.want(204, "DELETE", "/api/routes/a/%22%3C%C3%BC%3E", "")
	for _, path := range []string{"/%", "/a%2", "/%zz", "/user/%u0041"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			if got := s.raw(head(method+" /api/routes"+path, auth, "Content-Length: 0")); got.status != 400 {
				t.Errorf("%s %s: got %d; want 400", method, path, got.status)
			}
		}
	}
	if n := s.router.Table().Len(); n != 0 {
		t.Errorf("got %d routes; want none", n)
	}
}

func TestCHPView(t *testing.T) {
	s := serve(t, &admin.Handler{})
	put(t, s.router, "chp", slipswitch.Route{Path: "/mine"}, slipswitch.Route{Host: "h", Path: "/host"}, slipswitch.Route{Path: "/exact", Exact: true},
		slipswitch.Route{Path: "/null", Meta: json.RawMessage(`null`)}, slipswitch.Route{Path: "/array", Meta: json.RawMessage(`[1]`)},
		slipswitch.Route{Path: "/meta", Meta: json.RawMessage(`{"target":"x","last_activity":1,"y":2}`)})
	put(t, s.router, "other", slipswitch.Route{Path: "/theirs"}, slipswitch.Route{Path: "/mine"})
	if got, want := s.paths(""), []string{"/array", "/meta", "/mine", "/null"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
	data := decode[map[string]any](t, s.want(200, "GET", "/api/routes/meta", ""))
	if data["target"] != "http://127.0.0.1:9" || data["y"] != 2.0 || data["last_activity"] == 1.0 {
		t.Errorf("got %v", data)
	}
	s.want(404, "GET", "/api/routes/theirs", "")
	s.want(404, "DELETE", "/api/routes/theirs", "")
	s.want(404, "GET", "/api/routes/exact", "")
	s.want(404, "DELETE", "/api/routes/exact", "")
	// What is held can be found by him who put it.
	s.want(201, "POST", "/api/routes/theirs", target)
	s.want(200, "GET", "/api/routes/theirs", "")
	if got := s.paths(""); !slices.Contains(got, "/theirs") {
		t.Errorf("got %q; want /theirs in it", got)
	}
	if entry, _ := s.router.Table().At(slipswitch.Key{Path: "/theirs"}); entry.Owner != "other" {
		t.Errorf("/theirs belongs to %q now", entry.Owner)
	}
	s.want(204, "DELETE", "/api/routes/theirs", "")

	changed := serve(t, &admin.Handler{CHPRoute: func(r *slipswitch.Route) { r.StripPath = true }})
	changed.want(201, "POST", "/api/routes/a", target)
	if entry, _ := changed.router.Table().At(slipswitch.Key{Path: "/a"}); !entry.Route().StripPath {
		t.Error("CHPRoute had no effect")
	}
	for _, put := range []string{"http+unix://%2Frun%2Fs", "unix+http://%2Frun%2Fs", "http+unix://%2frun%2fs/"} {
		s.want(201, "POST", "/api/routes/socket", `{"target":"`+put+`"}`)
		if data := decode[map[string]any](t, s.want(200, "GET", "/api/routes/socket", "")); data["target"] != put {
			t.Errorf("got target %v; want %s as it was put", data["target"], put)
		}
	}
	changed = serve(t, &admin.Handler{CHPRoute: func(r *slipswitch.Route) {
		r.Labels = map[string]string{"target": r.Upstreams[0].URL}
		r.Upstreams = slipswitch.To("http://127.0.0.1:10")
	}})
	changed.want(201, "POST", "/api/routes/a", target)
	if data := decode[map[string]any](t, changed.want(200, "GET", "/api/routes/a", "")); data["target"] != "http://127.0.0.1:9" {
		t.Errorf("got target %v; want the one that was put", data["target"])
	}
}

func TestCHPHostRouting(t *testing.T) {
	s := serve(t, &admin.Handler{CHPHostRouting: true})
	for posted, want := range map[string]slipswitch.Key{
		"":                              {Path: "/"},
		"/hub.example.com":              {Host: "hub.example.com", Path: "/"},
		"/a.Hub.example.com/user/a/":    {Host: "a.hub.example.com", Path: "/user/a"},
		"/b.example.com/user/b%40b":     {Host: "b.example.com", Path: "/user/b@b"},
		"/b%2Eexample.com%2Fuser/c%2Fd": {Host: "b.example.com", Path: "/user/c/d"},
		"/10.0.0.1//x":                  {Host: "10.0.0.1", Path: "//x"},
	} {
		s.want(201, "POST", "/api/routes"+posted, target)
		if entry, ok := s.router.Table().At(want); !ok || entry.Key().Host != want.Host {
			t.Errorf("POST %s: got routes %s; want %v", posted, keys(s.router), want)
		}
		if posted != "" {
			s.want(200, "GET", "/api/routes"+posted, "")
		}
	}
	want := []string{"/", "/10.0.0.1//x", "/a.hub.example.com/user/a", "/b.example.com/user/b@b", "/b.example.com/user/c/d", "/hub.example.com"}
	if got := s.paths(""); !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
	for _, path := range []string{"/a%20b/x", "/h:80/x", "/ü/x"} {
		if got := s.do("POST", "/api/routes"+path, target); got.status != 400 || !strings.Contains(got.body, "host") {
			t.Errorf("POST %s: got %d %q; want 400 for the host", path, got.status, got.body)
		}
	}
	for _, path := range want[1:] {
		s.want(204, "DELETE", "/api/routes"+path, "")
	}
	s.want(204, "DELETE", "/api/routes", "")
}

// Whatever the path, nothing panics, and a route that was put is shown, can be
// found under what was shown when that is escaped again, and be deleted.
func FuzzCHPPath(f *testing.F) {
	for _, seed := range []string{"", "/", "/user/a%40b", "/a%2Fb", "/a%252Fb", "//x//", "/%FF", "/a/../b", "/%00", "/%C3%BC", "/h.example:1/x", "/a\"b%2f"} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, path string, hosts bool) {
		h := &admin.Handler{Router: new(slipswitch.Router), Open: true, CHPHostRouting: hosts}
		do := func(method, path, body string) *httptest.ResponseRecorder {
			r, err := http.NewRequest(method, "http://localhost/api/routes"+path, strings.NewReader(body))
			if err != nil {
				t.Skip() // net/http refuses it
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		if strings.ContainsAny(path, "?#") || path != "" && path[0] != '/' {
			t.Skip()
		}
		w := do("POST", path, target)
		if w.Code == 400 && w.Body.Len() > 0 {
			return
		}
		if w.Code != 201 {
			t.Fatalf("POST %q: got %d %s", path, w.Code, w.Body)
		}
		var shown map[string]json.RawMessage
		if err := json.Unmarshal(do("GET", "", "").Body.Bytes(), &shown); err != nil || len(shown) != 1 {
			t.Fatalf("POST %q: then shown %v, %v", path, shown, err)
		}
		for name := range shown {
			if strings.Contains(name, "%2F") {
				break // not told from a slash that was escaped twice
			}
			segments := strings.Split(name, "/")
			for i := range segments {
				segments[i] = url.PathEscape(segments[i])
			}
			if escaped := strings.Join(segments, "/"); name != "/" && do("GET", escaped, "").Code != 200 {
				t.Fatalf("POST %q: shown as %q, but not found as %q", path, name, escaped)
			}
		}
		if w := do("DELETE", path, ""); w.Code != 204 {
			t.Fatalf("DELETE %q: got %d", path, w.Code)
		}
	})
}
