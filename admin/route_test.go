package admin_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

func TestRoute(t *testing.T) {
	s := serve(t, &admin.Handler{})
	const (
		prefix = "/v1/route?host=ide.example.com&path=/ide-7"
		exact  = prefix + "&exact=true"
		route  = `{"host":"ide.example.com","path":"/ide-7","upstreams":["http://10.0.0.7:8080"],"idleTimeout":"2m0s","labels":{"team":"a"}}`
	)
	s.want(404, "GET", prefix, "")
	s.want(404, "DELETE", prefix, "")
	begin := time.Now().Add(-time.Millisecond)
	got := s.want(201, "PUT", prefix, route)
	item := decode[routeItem](t, got)
	if item.Route.IdleTimeout != 2*time.Minute || item.Route.Labels["team"] != "a" || item.Version != 1 || item.Shadowed ||
		item.Owner != "" || item.Tunnels != 0 || item.LastActive.Before(begin) || item.LastActive.After(time.Now()) {
		t.Errorf("PUT answered %+v", item)
	}
	if got.header.Get("ETag") != `"1"` {
		t.Errorf("got ETag %s; want \"1\"", got.header.Get("ETag"))
	}
	if item.LastActive != item.LastActive.Truncate(time.Millisecond) {
		t.Errorf("got lastActive %v; want milliseconds", item.LastActive)
	}
	put(t, s.router, "", slipswitch.Route{Path: "/other"})
	if again := s.want(200, "PUT", prefix, route); decode[routeItem](t, again).Version != 1 || again.header.Get("ETag") != `"1"` || s.router.Table().Version() != 2 {
		t.Errorf("the same again: got %s; want version 1", again.body)
	}
	s.want(404, "GET", exact, "")
	s.want(201, "PUT", exact, strings.Replace(route, `"path"`, `"exact":true,"path"`, 1))
	if got := s.want(200, "GET", prefix, ""); !strings.Contains(got.body, `"idleTimeout":"2m0s"`) {
		t.Errorf("got %s", got.body)
	}
	if got := s.want(200, "HEAD", prefix, ""); got.body != "" || got.header.Get("ETag") != `"1"` {
		t.Errorf("HEAD: got %v", got)
	}
	s.want(204, "DELETE", prefix, "")
	s.want(404, "DELETE", prefix, "")
	s.want(200, "GET", exact, "")

	// One place, other spellings.
	s.want(201, "PUT", "/v1/route?path=/a%2540b%2520%25C3%25BC", `{"path":"/a%40b%20%C3%BC","upstreams":["http://h"]}`)
	s.want(200, "GET", "/v1/route?path=/a@b%2520%C3%BC", "")
	// An escaped slash stays inside of its segment, and two slashes are two.
	s.want(201, "PUT", "/v1/route?path=/a%252Fb", `{"path":"/a%2Fb","upstreams":["http://h"]}`)
	s.want(404, "GET", "/v1/route?path=/a/b", "")
	s.want(200, "GET", "/v1/route?path=/a%252fb", "")
	s.want(201, "PUT", "/v1/route?path=//x", `{"path":"//x","upstreams":["http://h"]}`)
	s.want(404, "GET", "/v1/route?path=/x", "")
}

// A connection is closed only if a body was left unread.
func TestConnectionIsKept(t *testing.T) {
	s := serve(t, &admin.Handler{})
	const body = `{"path":"/a","upstreams":["http://h"]}`
	auth, kind := "Authorization: token "+token, "Content-Type: application/json"
	for _, test := range []struct {
		request string
		want    bool
	}{
		{head("GET /v1/status", auth), false},
		{head("GET /v1/status"), false},
		{head("PUT /v1/route?path=/a", auth, kind, fmt.Sprint("Content-Length: ", len(body))) + body, false},
		{head("PUT /v1/route?path=/b", auth, kind, fmt.Sprint("Content-Length: ", len(body))) + body, false},
		{head("POST /v1/nothing", auth, kind, fmt.Sprint("Content-Length: ", len(body))) + body, true},
	} {
		if got := s.raw(test.request).closes; got != test.want {
			t.Errorf("%.40q: got the connection closed: %v; want %v", test.request, got, test.want)
		}
	}
}

func TestRouteErrors(t *testing.T) {
	s := serve(t, &admin.Handler{MaxBody: 1000})
	const good = `{"path":"/a","upstreams":["http://h"]}`
	deep := func(n int) string {
		return `{"path":"/a","upstreams":["http://h"],"meta":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for _, test := range []struct {
		query, body string
		status      int
		want        string // in the answer
	}{
		{"path=/a", good, 201, ``},
		{"", good, 400, `path \"\" must be the path of a route`},
		{"path=a", good, 400, `path \"a\" must`},
		{"path=/a&exact=maybe", good, 400, `exact \"maybe\" must be true or false`},
		{"path=/a&path=/b", good, 400, `path \"/b\" must be given only once`},
		{"path=/a&pth=/b", good, 400, `parameter \"pth\" must be one of host, path, exact`},
		{"path=/a&limit=1", good, 400, `parameter \"limit\"`},
		{"path=/b", good, 400, `"field":"path","value":"/a","want":"must be as in the address: /b"`},
		{"path=/a&host=h", good, 400, `"field":"host","value":"","want":"must be as in the address: h"`},
		{"path=/a&exact=true", good, 400, `"field":"exact","value":"false","want":"must be as in the address: true"`},
		{"path=/a%20b", `{"path":"/a b","upstreams":["http://h"]}`, 400, `"field":"path","value":"/a b","want":"must not contain a space`},
		{"path=/a", `{"path":"/a"}`, 400, `"field":"upstreams","value":"","want":"must name at least one`},
		{"path=/a", `{"path":"/a","upstreams":["ftp://x"]}`, 400, `"field":"upstreams[0]","value":"ftp://x","want":"must begin with http`},
		{"path=/a", `{"path":"/a","upstreams":["http://h"],"idle":"1s","maxBody":"x"}`, 400,
			`{"index":0,"key":{"path":"/a"},"field":"idle","value":"\"1s\"","want":"must not be there: a route has no such field"},` +
				`{"index":0,"key":{"path":"/a"},"field":"maxBody","value":"\"x\"","want":"must be a whole number"}`},
		{"path=/a", `{"path":"/a","upstreams":["http://h"],"idleTimeout":5}`, 400, `"field":"idleTimeout","value":"5","want":"must be a duration such as`},
		{"path=/a", `{"path":"/a","upstreams":["http://h"],"idleTimeout":"5"}`, 400, `must be a duration such as`},
		{"path=/a", `{"path":"/a","upstreams":"http://h"}`, 400, `"field":"upstreams","value":"\"http://h\"","want":"must be an array of URLs`},
		{"path=/a", `{"path":5}`, 400, `"field":"path","value":"5","want":"must be a text"`},
		{"path=/a", `{"protocols":"x","labels":{"a":1},"exact":1,"maxBody":1.5,"tlsProfile":null,"opaqueQuery":[]}`, 400,
			`"field":"exact","value":"1","want":"must be true or false"},` +
				`{"index":0,"key":{"path":""},"field":"labels.a","value":"1","want":"must be a text"},` +
				`{"index":0,"key":{"path":""},"field":"maxBody","value":"1.5","want":"must be a whole number"},` +
				`{"index":0,"key":{"path":""},"field":"opaqueQuery","value":"[]","want":"must be a text"},` +
				`{"index":0,"key":{"path":""},"field":"protocols","value":"\"x\"","want":"must be an array of texts"}]`},
		{"path=/a", `[]`, 400, `"field":"route","value":"[]","want":"must be an object"`},
		{"path=/a", `null`, 400, `must be an object`},
		{"path=/a", `"x"`, 400, `must be an object`},
		{"path=/a", ` `, 400, `the body must be a whole JSON value`},
		{"path=/a", `{`, 400, `the body must be a whole JSON value: it ends at byte 1`},
		{"path=/a", `{"path":"/a",}`, 400, `the body must be JSON: invalid character '}'`},
		{"path=/a", `{"path":"/a"]`, 400, `the body must be JSON: invalid character ']'`},
		{"path=/a", good + good, 400, `the body must be one JSON value: more follows`},
		{"path=/a", good + "x", 400, `the body must be one JSON value: more follows`},
		{"path=/a", "{\"path\":\"/\xff\"}", 400, `the body must be UTF-8`},
		{"path=/a", `{"path":"/a","path":"/b"}`, 400, `must not have the key \"path\" twice`},
		{"path=/a", `{"path":"/a","PATH":"/b"}`, 400, `must not have the key \"PATH\" twice`},
		{"path=/a", `{"host":"a","ho\u017ft":"b"}`, 400, `must not have the key`},
		{"path=/a", `{"path":"/a","upstreams":["http://h"],"labels":{"a":"1","A":"2"}}`, 200, ``},
		{"path=/a", `{"path":"/a","upstreams":["http://h"],"labels":{"a":"1","a":"2"}}`, 400, `the key \"a\" twice`},
		{"path=/a", `{"path":"/a","upstreams":["http://h"],"meta":{"x":{"a":1,"A":2}}}`, 200, ``},
		{"path=/a", `{"path":"/a","upstreams":["http://h"],"meta":{"x":[{"a":1,"a":2}]}}`, 400, `the key \"a\" twice`},
		{"path=/a", deep(63), 200, ``},
		{"path=/a", deep(64), 400, `must not be nested deeper than 64 levels`},
		{"path=/a", good + strings.Repeat(" ", 1000), 413, `the body must be at most 1000 bytes long`},
	} {
		got := s.do("PUT", "/v1/route?"+test.query, test.body)
		if got.status != test.status || !strings.Contains(got.body, test.want) {
			t.Errorf("PUT %s %s: got %d %s; want %d …%s…", test.query, test.body, got.status, got.body, test.status, test.want)
		}
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", "multipart/form-data; boundary=x"} {
		for _, request := range []string{"PUT /v1/route?path=/a", "POST /v1/batch"} {
			method, target, _ := strings.Cut(request, " ")
			if got := s.do(method, target, good, "Content-Type: "+kind); got.status != 415 || !strings.Contains(got.body, "must be application/json") {
				t.Errorf("%s as %q: got %d %s; want 415", request, kind, got.status, got.body)
			}
		}
	}
	s.want(200, "PUT", "/v1/route?path=/a", good, "Content-Type: Application/JSON; charset=utf-8")

	for _, method := range []string{"GET", "DELETE"} {
		for query, want := range map[string]string{"": "path", "path=x": "path", "path=/a&x=y": "parameter", "path=/a&exact=2": "exact", "path=/%zz": "query"} {
			if got := s.want(400, method, "/v1/route?"+query, ""); !strings.Contains(got.body, want) {
				t.Errorf("%s %s: got %s; want %s named", method, query, got.body, want)
			}
		}
		// Where no route can be, there is none.
		s.want(404, method, "/v1/route?path=/a/../b", "")
		s.want(404, method, "/v1/route?host=a+b&path=/", "")
		s.want(404, method, "/v1/route?path=/%2500", "")
	}

	// Too long is known before it is read where the length is told, and while it
	// is read where it is not.
	auth, kind := "Authorization: token "+token, "Content-Type: application/json"
	if got := s.raw(head("PUT /v1/route?path=/a", auth, kind, "Content-Length: 1001")); got.status != 413 {
		t.Errorf("long body announced: got %d; want 413", got.status)
	}
	chunk := "400\r\n" + strings.Repeat(" ", 1024) + "\r\n"
	if got := s.raw(head("PUT /v1/route?path=/a", auth, kind, "Transfer-Encoding: chunked") + chunk); got.status != 413 {
		t.Errorf("long body in chunks: got %d; want 413", got.status)
	}
	// A body that is cut off is no change.
	if got := s.raw(head("PUT /v1/route?path=/cut", auth, kind, "Transfer-Encoding: chunked") + "zz\r\n"); got.status != 400 {
		t.Errorf("malformed chunk: got %d; want 400", got.status)
	}
}

func TestPreconditions(t *testing.T) {
	s := serve(t, &admin.Handler{})
	body := func(n int) string { return fmt.Sprintf(`{"path":"/a","upstreams":["http://h:%d"]}`, n) }
	const target = "/v1/route?path=/a"
	s.want(412, "PUT", target, body(1), "If-Match: *")
	s.want(412, "PUT", target, body(1), `If-Match: "0"`)
	s.want(412, "DELETE", target, "", `If-Match: "0"`)
	s.want(201, "PUT", target, body(1), "If-None-Match: *")
	s.want(412, "PUT", target, body(2), "If-None-Match: *")
	s.want(412, "PUT", target, body(2), `If-Match: "2"`)
	s.want(412, "PUT", target, body(2), `If-Match: W/"1"`)
	s.want(412, "PUT", target, body(2), `If-Match: 1`)
	got := s.want(200, "PUT", target, body(2), `If-Match: "9", "1"`)
	if got.header.Get("ETag") != `"2"` {
		t.Errorf("got ETag %s; want \"2\"", got.header.Get("ETag"))
	}
	s.want(412, "DELETE", target, "", `If-Match: "1"`)
	s.want(412, "POST", "/v1/batch", `{"changes":[],"replace":true}`, `If-Match: "1"`)
	s.want(200, "POST", "/v1/batch", `{"changes":[{"put":{"path":"/b","upstreams":["http://h"]}}]}`, `If-Match: "2"`)
	s.want(204, "DELETE", target, "", `If-Match: "2"`)

	// Of many who all read the same, one may write.
	s.want(201, "PUT", target, body(3))
	version := s.want(200, "GET", target, "").header.Get("ETag")
	var wg sync.WaitGroup
	wrote := make(chan int, 16)
	for i := range cap(wrote) {
		wg.Go(func() { wrote <- s.do("PUT", target, body(10+i), "If-Match: "+version).status })
	}
	wg.Wait()
	close(wrote)
	counts := map[int]int{}
	for status := range wrote {
		counts[status]++
	}
	if counts[200] != 1 || counts[412] != cap(wrote)-1 {
		t.Errorf("16 writers with one version: got %v; want one 200, else 412", counts)
	}
}

func TestOwners(t *testing.T) {
	s := serve(t, &admin.Handler{Owner: &slipswitch.Owner{Name: "api", Paths: []string{"/a", "/b"}}})
	put(t, s.router, "files", slipswitch.Route{Path: "/a"})
	got := s.want(201, "PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://h"]}`)
	if item := decode[routeItem](t, got); !item.Shadowed || item.Owner != "api" {
		t.Errorf("got %s; want it shadowed for api", got.body)
	}
	if item := decode[routeItem](t, s.want(200, "GET", "/v1/route?path=/a", "")); item.Shadowed || item.Owner != "files" {
		t.Errorf("GET: got %+v; want the one of files", item)
	}
	if item := decode[routeItem](t, s.want(200, "GET", "/v1/route?path=/a&owner=api", "")); !item.Shadowed || item.Owner != "api" {
		t.Errorf("GET owner=api: got %+v; want the one of api, shadowed", item)
	}
	s.want(404, "GET", "/v1/route?path=/a&owner=", "")
	page := decode[routePage](t, s.want(200, "GET", "/v1/routes?owner=api", ""))
	if len(page.Routes) != 1 || !page.Routes[0].Shadowed {
		t.Errorf("GET owner=api: got %+v; want one shadowed route", page)
	}
	s.want(204, "DELETE", "/v1/route?path=/a", "")
	if got := s.want(409, "DELETE", "/v1/route?path=/a", ""); !strings.Contains(got.body, `belongs to owner \"files\"`) {
		t.Errorf("got %s", got.body)
	}
	got = s.want(400, "PUT", "/v1/route?path=/c", `{"path":"/c","upstreams":["http://h"]}`)
	if !strings.Contains(got.body, `"owner":"api","key":{"path":"/c"},"field":"path","value":"/c","want":"must be within what owner`) {
		t.Errorf("outside of the owner's paths: got %s", got.body)
	}
	// replace is about the own routes only.
	s.want(200, "POST", "/v1/batch", `{"changes":[{"put":{"path":"/b","upstreams":["http://h"]}}],"replace":true}`)
	if entry, _ := s.router.Table().At(slipswitch.Key{Path: "/b"}); entry.Owner != "api" {
		t.Errorf("/b belongs to %q; want api", entry.Owner)
	}
	s.want(200, "POST", "/v1/batch", `{"changes":[],"replace":true}`)
	if n := s.router.Table().Len(); n != 1 {
		t.Errorf("got %d routes; want the one of files", n)
	}
}

// The address says which route it is: the body need not.
func TestPutWithoutKey(t *testing.T) {
	s := serve(t, &admin.Handler{})
	s.want(201, "PUT", "/v1/route?host=h.example&path=/a&exact=true", `{"upstreams":["http://up"]}`)
	want := slipswitch.Key{Host: "h.example", Path: "/a", Exact: true}
	if _, ok := s.router.Table().At(want); !ok {
		t.Errorf("got routes %s; want %s", keys(s.router), want)
	}
	for _, body := range []string{`{"host":"h.example","upstreams":["http://up"]}`, `{"path":"/b","upstreams":["http://up"]}`, `{"exact":true,"upstreams":["http://up"]}`} {
		s.want(400, "PUT", "/v1/route?host=h.example&path=/a", body)
	}
}
