package slipswitch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// fullRoute has a value in every field.
func fullRoute() slipswitch.Route {
	return slipswitch.Route{
		Host: "ide.example.com", Path: "/webapp-01/ide-7", Exact: true,
		Upstreams: slipswitch.To("http://10.0.0.7:8080", "https://10.0.0.8/base"),
		StripPath: true, RestorePath: true, Tenant: true, SameOrigin: true, Resolve: true,
		Sticky: slipswitch.Sticky{Cookie: "lb", Path: "/", SameSite: "strict"},
		Check:  slipswitch.Check{Path: "/healthz", Every: 20 * time.Second, Timeout: time.Second},
		Headers: slipswitch.Headers{HideCookies: []string{"session"}, HideHeaders: []string{"Authorization"},
			Request:  slipswitch.HeaderRules{Remove: []string{"X-A"}, Set: map[string]string{"X-B": "b"}, Add: map[string]string{"X-C": "c"}},
			Response: slipswitch.HeaderRules{Set: map[string]string{"X-Frame-Options": "DENY"}}},
		UpstreamHost: "ide-7.internal", TLSProfile: "internal",
		Protocols: []string{"spdy/3.1"}, OpaqueQuery: "skipWebSocketFrames=true", MaxBody: 1 << 30,
		BodyTimeout: 6 * time.Second,
		DialTimeout: 1 * time.Second, HandshakeTimeout: 2 * time.Second, HeaderTimeout: 3 * time.Second, StreamTimeout: 4 * time.Second,
		StallTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, LifeTimeout: 90 * time.Minute,
		AckTimeout: 40 * time.Second, PingEvery: 30 * time.Second,
		ActivitySize:      14,
		OnDelete:          slipswitch.ClosePolicy{Close: true, After: time.Minute, Window: 30 * time.Second, Code: 4001, Reason: "deleted"},
		OnUpstreamRemoved: slipswitch.ClosePolicy{Close: true},
		Labels:            map[string]string{"workspace": "7"}, Meta: json.RawMessage(`{"user":"ada"}`),
	}
}

func TestRouteEqualKnowsEveryField(t *testing.T) {
	route := fullRoute()
	v := reflect.ValueOf(&route).Elem()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("fullRoute has no %s", v.Type().Field(i).Name)
		}
		other := fullRoute()
		field := reflect.ValueOf(&other).Elem().Field(i)
		field.SetZero()
		if route.Equal(&other) {
			t.Errorf("Equal does not see that %s differs", v.Type().Field(i).Name)
		}
	}
	if other := fullRoute(); !route.Equal(&other) {
		t.Error("a route does not equal itself")
	}
}

func TestRouteJSONRoundTrip(t *testing.T) {
	route := fullRoute()
	text, err := json.Marshal(route)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"idleTimeout":"2m0s"`, `"pingEvery":"30s"`, `"lifeTimeout":"1h30m0s"`, `"upstreams":["http://10.0.0.7:8080","https://10.0.0.8/base"]`,
		`"onDelete":{"close":true,"code":4001,"reason":"deleted","after":"1m0s","window":"30s"}`, `"onUpstreamRemoved":{"close":true}`,
		`"check":{"path":"/healthz","every":"20s","timeout":"1s"}`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("got %s; want %s in it", text, want)
		}
	}
	var read slipswitch.Route
	if err := json.Unmarshal(text, &read); err != nil || !read.Equal(&route) {
		t.Errorf("got %+v, %v; want %+v", read, err, route)
	}
	if text, _ := json.Marshal(slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://a")}); string(text) != `{"path":"/a","upstreams":["http://a"]}` {
		t.Errorf("got %s; want nothing that is zero", text)
	}
	plain := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://a")}
	for _, kept := range []string{`"sticky":null,"headers":null`, `"sticky":{},"headers":{}`, `"headers":{"hideCookies":[],"request":{"set":{}}}`} {
		var read slipswitch.Route
		if err := json.Unmarshal([]byte(`{"path":"/a","upstreams":["http://a"],`+kept+`}`), &read); err != nil || !read.Equal(&plain) {
			t.Errorf("%s: got %+v, %v; want a route without either", kept, read, err)
		}
		if text, _ := json.Marshal(read); string(text) != `{"path":"/a","upstreams":["http://a"]}` {
			t.Errorf("%s: got %s; want nothing that is zero", kept, text)
		}
	}
}

func TestRouteJSONIsStrict(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{`{"stripPaht":true}`, `stripPaht "true" must not be there: a route has no such field`},
		{`{"idleTimeout":120}`, `idleTimeout "120" must be a duration such as "120s" or "1h30m"`},
		{`{"idleTimeout":"120"}`, `idleTimeout "\"120\"" must be a duration such as "120s" or "1h30m"`},
		{`{"pingEvery":5}`, `pingEvery "5" must be a duration such as "120s" or "1h30m"`},
		{`{"restorePath":"yes"}`, `restorePath "\"yes\"" must be true or false`},
		{`{"sticky":true}`, `sticky "true" must be an object`},
		{`{"sticky":{"cookie":7}}`, `sticky.cookie "7" must be a text`},
		{`{"sticky":{"cokie":"a"}}`, `sticky.cokie "\"a\"" must not be there: known are cookie, path, sameSite`},
		{`{"activitySize":1.5}`, `activitySize "1.5" must be a whole number`},
		{`{"maxBody":"1"}`, `maxBody "\"1\"" must be a whole number`},
		{`{"upstreams":"http://a"}`, `upstreams "\"http://a\"" must be an array of URLs such as "http://10.0.0.7:8080"`},
		{`{"upstreams":["http://a",7]}`, `upstreams[1] "7" must be a URL such as "http://10.0.0.7:8080", or an object with url and weight`},
		{`{"upstreams":["http://a",{"url":"http://b","wieght":1}]}`, `upstreams[1].wieght "1" must not be there: known are url, weight`},
		{`{"upstreams":[{"url":"http://b","weight":"1"}]}`, `upstreams[0].weight "\"1\"" must be a whole number`},
		{`{"onDelete":{"clsoe":true}}`, `onDelete.clsoe "true" must not be there: known are close, code, reason, after, window`},
		{`{"onDelete":{"close":true,"after":5}}`, `onDelete.after "5" must be a duration such as "120s" or "1h30m"`},
		{`{"onDelete":{"close":true,"code":70000}}`, `onDelete.code "70000" must be a whole number from 0 to 65535`},
		{`{"check":{"path":"/","evrey":"5s"}}`, `check.evrey "\"5s\"" must not be there: known are path, every, timeout`},
		{`{"check":{"path":"/","every":5}}`, `check.every "5" must be a duration such as "120s" or "1h30m"`},
		{`{"protocols":["a",1]}`, `protocols[1] "1" must be a text`},
		{`{"labels":{"a":1}}`, `labels.a "1" must be a text`},
		{`{"labels":[]}`, `labels "[]" must be an object of texts`},
		{`{"headers":{"request":{"set":{"X-A":1}}}}`, `headers.request.set.X-A "1" must be a text`},
		{`{"headers":{"hideCookies":"a"}}`, `headers.hideCookies "\"a\"" must be an array of texts`},
		{`{"path":7,"EXACT":1,"host":null}`, `EXACT "1" must be true or false; path "7" must be a text`},
		{`{"path":7,"path":"/a"}`, `path "7" must be a text`},
		{`{"labels":{"a":1,"a":"b"}}`, `labels.a "1" must be a text`},
		{`[]`, `route "[]" must be an object`},
		{`7`, `route "7" must be an object`},
	} {
		read := slipswitch.Route{Path: "/before"}
		err := json.Unmarshal([]byte(test.text), &read)
		if _, ok := errors.AsType[slipswitch.FieldErrors](err); !ok || err.Error() != "slipswitch: "+test.want {
			t.Errorf("%s: got error %v; want %s", test.text, err, test.want)
		}
		if read.Path != "/before" {
			t.Errorf("%s: it was half read: %+v", test.text, read)
		}
	}
}

// What is no JSON is told as what it is, and of much that is wrong the beginning.
func TestRouteJSONErrors(t *testing.T) {
	many := `{"upstreams":[` + strings.Repeat("7,", 100) + `7]}`
	for _, test := range []struct {
		text string
		n    int
		want slipswitch.FieldError // the first
	}{
		{``, 1, slipswitch.FieldError{Field: "route", Want: "must be JSON: it ends too early"}},
		{`{"path":"/a"`, 1, slipswitch.FieldError{Field: "route", Value: `{"path":"/a"`, Want: "must be JSON: it ends too early"}},
		{`{"path":}`, 1, slipswitch.FieldError{Field: "route", Value: `{"path":}`, Want: "must be JSON: invalid character '}' looking for beginning of value"}},
		{`{"path":"/a"} x`, 1, slipswitch.FieldError{Field: "route", Value: `{"path":"/a"} x`, Want: "must be JSON: something follows its end"}},
		{many, 16, slipswitch.FieldError{Field: "upstreams[0]", Value: "7", Want: `must be a URL such as "http://10.0.0.7:8080", or an object with url and weight`}},
		{`{"meta":` + strings.Repeat(" ", 100) + `1,"exact":"` + strings.Repeat("x", 100) + `"}`, 1,
			slipswitch.FieldError{Field: "exact", Value: `"` + strings.Repeat("x", 60) + "…", Want: "must be true or false"}},
	} {
		err := new(slipswitch.Route).UnmarshalJSON([]byte(test.text))
		got, _ := errors.AsType[slipswitch.FieldErrors](err)
		if len(got) != test.n || *got[0] != test.want {
			t.Errorf("%.40s: got %d: %+v; want %d: %+v", test.text, len(got), got, test.n, test.want)
		}
	}
}

// Whatever is no route: it is told by its fields, not by what encoding/json says.
func FuzzFieldErrors(f *testing.F) {
	full, _ := json.Marshal(fullRoute())
	for _, text := range []string{string(full), `{"upstreams":[{"url":1}],"meta":[],"labels":{"a":null}}`, `{"EXACT":1,"exact":2}`, `[`, `{"maxBody":1e3}`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := new(slipswitch.Route).UnmarshalJSON([]byte(text))
		if err == nil {
			return
		}
		errs, ok := errors.AsType[slipswitch.FieldErrors](err)
		if !ok || len(errs) == 0 {
			t.Fatalf("got %#v; want field errors", err)
		}
		for _, e := range errs {
			if e.Field == "" || !strings.HasPrefix(e.Want, "must ") || strings.HasPrefix(e.Want, "must be read") || len(e.Value) > 64 {
				t.Errorf("got %+v", e)
			}
		}
	})
}

// Whatever reads a key or a part of a route says by the same type what is wrong.
func TestFieldErrors(t *testing.T) {
	parse := func(text string) error { _, err := slipswitch.ParseKey(text); return err }
	canonical := func(k slipswitch.Key) error { _, err := k.Canonical(); return err }
	var router slipswitch.Router
	_, putErr := router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("ftp://a")}})
	for _, test := range []struct {
		err  error
		want string
	}{
		{parse("a"), `path "a" must begin with /`},
		{canonical(slipswitch.Key{Host: "a b", Path: "/"}), `host "a b" must`},
		{json.Unmarshal([]byte(`{"path":"/a","kind":1}`), new(slipswitch.Key)), `kind "1" must not be there: known are host, path, exact`},
		{json.Unmarshal([]byte(`7`), new(slipswitch.Upstream)), `upstream "7" must be a URL`},
		{json.Unmarshal([]byte(`{"after":1}`), new(slipswitch.ClosePolicy)), `after "1" must be a duration`},
		{json.Unmarshal([]byte(`{"every":1}`), new(slipswitch.Check)), `every "1" must be a duration`},
		{putErr, `upstreams[0] "ftp://a" must begin with`},
	} {
		got, ok := errors.AsType[*slipswitch.FieldError](test.err)
		if !ok || !strings.HasPrefix(got.Error(), test.want) {
			t.Errorf("got %v; want a field error %s", test.err, test.want)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	valid := func() slipswitch.Route {
		return slipswitch.Route{Host: "h", Path: "/a", Upstreams: slipswitch.To("http://up")}
	}
	long := strings.Repeat("a", slipswitch.MaxPath)
	for _, test := range []struct {
		name  string
		field string
		spoil func(*slipswitch.Route)
	}{
		{"no path", "path", func(r *slipswitch.Route) { r.Path = "" }},
		{"relative path", "path", func(r *slipswitch.Route) { r.Path = "a" }},
		{"query in path", "path", func(r *slipswitch.Route) { r.Path = "/a?b" }},
		{"dots in path", "path", func(r *slipswitch.Route) { r.Path = "/a/../b" }},
		{"escaped dots in path", "path", func(r *slipswitch.Route) { r.Path = "/a/%2e%2e/b" }},
		{"bad escape in path", "path", func(r *slipswitch.Route) { r.Path = "/%zz" }},
		{"long path", "path", func(r *slipswitch.Route) { r.Path = "/" + long }},
		{"port in host", "host", func(r *slipswitch.Route) { r.Host = "h:80" }},
		{"three stars", "host", func(r *slipswitch.Route) { r.Host = "***.h" }},
		{"star inside", "host", func(r *slipswitch.Route) { r.Host = "a.*.h" }},
		{"only a star", "host", func(r *slipswitch.Route) { r.Host = "*" }},
		{"unicode host", "host", func(r *slipswitch.Route) { r.Host = "\u212aelvin" }},
		{"long host", "host", func(r *slipswitch.Route) { r.Host = strings.Repeat("aaa.", 64) + "a" }},
		{"no upstream", "upstreams", func(r *slipswitch.Route) { r.Upstreams = nil }},
		{"empty upstream", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("") }},
		{"upstream scheme", "upstreams[1]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("http://a", "ftp://a") }},
		{"upstream without host", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("http://:80") }},
		{"upstream with user", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("http://u:p@a") }},
		{"upstream with query", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("http://a/?b") }},
		{"upstream with fragment", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("http://a/#") }},
		{"upstream with bad port", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("http://a:99999") }},
		{"upstream with dots", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("http://a/b/../c") }},
		{"upstream scheme only", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("http") }},
		{"upstream with braces in its path", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("unix:/run/{1}.sock") }},
		{"relative socket", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("unix:run/x.sock") }},
		{"socket with dots", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("unix:/run/../x.sock") }},
		{"long socket", "upstreams[0]", func(r *slipswitch.Route) { r.Upstreams = slipswitch.To("unix:/" + strings.Repeat("x", 108)) }},
		{"upstream host", "upstreamHost", func(r *slipswitch.Route) { r.UpstreamHost = "a\r\nb" }},
		{"protocol", "protocols[0]", func(r *slipswitch.Route) { r.Protocols = []string{"SPDY"} }},
		{"protocol h2c", "protocols[0]", func(r *slipswitch.Route) { r.Protocols = []string{"h2c"} }},
		{"check without path", "check.path", func(r *slipswitch.Route) { r.Check.Every = time.Minute }},
		{"check of a URL", "check.path", func(r *slipswitch.Route) { r.Check.Path = "http://a/" }},
		{"check of a query", "check.path", func(r *slipswitch.Route) { r.Check.Path = "?a" }},
		{"check of another host", "check.path", func(r *slipswitch.Route) { r.Check.Path = "//a/" }},
		{"check with dots", "check.path", func(r *slipswitch.Route) { r.Check.Path = "/a/%2e%2e/b" }},
		{"check that splits", "check.path", func(r *slipswitch.Route) { r.Check.Path = "/a? HTTP/1.1\r\nX: y" }},
		{"check too often", "check.every", func(r *slipswitch.Route) { r.Check = slipswitch.Check{Path: "/", Every: time.Millisecond} }},
		{"check hardly ever", "check.every", func(r *slipswitch.Route) { r.Check = slipswitch.Check{Path: "/", Every: 1<<63 - 1} }},
		{"check timeout", "check.timeout", func(r *slipswitch.Route) { r.Check = slipswitch.Check{Path: "/", Timeout: -1} }},
		{"check of a template", "check", func(r *slipswitch.Route) {
			r.Check.Path, r.Upstreams = "/", slipswitch.To("http://{1:a}", "http://{1:b}")
		}},
		{"negative body", "maxBody", func(r *slipswitch.Route) { r.MaxBody = -1 }},
		{"hasty acknowledgements", "ackTimeout", func(r *slipswitch.Route) { r.AckTimeout = 4*time.Second - 1 }},
		{"hasty pings", "pingEvery", func(r *slipswitch.Route) { r.PingEvery = time.Second - 1 }},
		{"negative pings", "pingEvery", func(r *slipswitch.Route) { r.PingEvery = -time.Second }},
		{"negative timeout", "idleTimeout", func(r *slipswitch.Route) { r.IdleTimeout = -1 }},
		{"activity", "activitySize", func(r *slipswitch.Route) { r.ActivitySize = -1 }},
		{"ending without close", "onDelete.close", func(r *slipswitch.Route) { r.OnDelete.After = time.Minute }},
		{"ending before the event", "onDelete.after", func(r *slipswitch.Route) { r.OnDelete = slipswitch.ClosePolicy{Close: true, After: -1} }},
		{"ending window", "onUpstreamRemoved.window", func(r *slipswitch.Route) { r.OnUpstreamRemoved = slipswitch.ClosePolicy{Close: true, Window: -1} }},
		{"ending code", "onDelete.code", func(r *slipswitch.Route) { r.OnDelete = slipswitch.ClosePolicy{Close: true, Code: 1005} }},
		{"ending reason", "onDelete.reason", func(r *slipswitch.Route) {
			r.OnDelete = slipswitch.ClosePolicy{Close: true, Reason: strings.Repeat("a", 124)}
		}},
		{"ending reason in Latin-1", "onDelete.reason", func(r *slipswitch.Route) { r.OnDelete = slipswitch.ClosePolicy{Close: true, Reason: "\xfc"} }},
		{"meta", "meta", func(r *slipswitch.Route) { r.Meta = json.RawMessage("{") }},
		{"too long", "route", func(r *slipswitch.Route) { r.Labels = map[string]string{"a": strings.Repeat("x", slipswitch.MaxRoute)} }},
		{"too long once escaped", "route", func(r *slipswitch.Route) {
			r.Labels = map[string]string{"a": strings.Repeat("\x01", slipswitch.MaxRoute/6)}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var router slipswitch.Router
			route := valid()
			test.spoil(&route)
			_, err := router.Update(func(tx *slipswitch.Txn) error {
				tx.Put(valid())
				tx.Put(route)
				return nil
			})
			batch, ok := errors.AsType[*slipswitch.BatchError](err)
			if !ok || len(batch.Routes) != 1 {
				t.Fatalf("got error %v; want one route's", err)
			}
			bad := batch.Routes[0]
			if bad.Index != 1 || bad.Field != test.field || !strings.HasPrefix(bad.Want, "must ") || bad.Key.Path != route.Path {
				t.Errorf("got %+v; want change 1, field %s, a Want of must …", bad, test.field)
			}
			if len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if router.Table().Len() != 0 || router.Table().Version() != 0 {
				t.Error("the batch was half applied")
			}
		})
	}
	var router slipswitch.Router
	route := valid()
	route.Path = "/" + long[1:]
	put(t, &router, route) // the longest that may be
	if _, err := router.Lookup("h", route.Path+"/x"); err != nil {
		t.Errorf("the longest path is not found: %v", err)
	}
}

func TestRouteIsCopied(t *testing.T) {
	var router slipswitch.Router
	route := fullRoute()
	put(t, &router, route)
	route.Upstreams[0].URL, route.Protocols[0], route.Labels["workspace"], route.Meta[0] = "x", "x", "x", 'x'
	route.Sticky.Cookie, route.Headers.HideCookies[0], route.Headers.Request.Set["X-B"] = "x", "x", "x"
	e, ok := router.Table().At(route.Key())
	want := fullRoute()
	if !ok || !e.Route().Equal(&want) {
		t.Errorf("got %+v; want %+v", e.Route(), want)
	}
}

// A meta with other spaces, or escaped as encoding/json does it, is the same.
func TestMetaSpelling(t *testing.T) {
	var router slipswitch.Router
	route := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://up")}
	for _, meta := range []string{`{"a b":[1,"<x> y"]}`, "{\n  \"a b\" : [ 1, \"<x> y\" ]\n}\n", `{"a b":[1,"\u003cx\u003e y"]}`} {
		route.Meta = json.RawMessage(meta)
		put(t, &router, route)
		if version := router.Table().Version(); version != 1 {
			t.Errorf("%s: version %d; want 1", meta, version)
		}
		if e, _ := router.Table().At(route.Key()); string(e.Route().Meta) != `{"a b":[1,"\u003cx\u003e y"]}` {
			t.Errorf("kept as %s", e.Route().Meta)
		}
	}
}

func TestEveryInvalidRouteOfABatchIsReported(t *testing.T) {
	var router slipswitch.Router
	var changes []slipswitch.Change
	for i := range 10 {
		route := slipswitch.Route{Path: fmt.Sprintf("/%d", i), Upstreams: slipswitch.To("http://up")}
		if i%3 == 0 {
			route.Upstreams, route.MaxBody = slipswitch.To("gopher://up"), -1 // two faults
		}
		changes = append(changes, slipswitch.Change{Put: &route})
	}
	changes = append(changes, slipswitch.Change{}, slipswitch.Change{Delete: &slipswitch.Key{Path: "%"}})
	version, err := router.Apply(nil, changes...)
	batch, ok := errors.AsType[*slipswitch.BatchError](err)
	if !ok || version != 0 {
		t.Fatalf("got %d, %v; want a batch error", version, err)
	}
	var got []string
	for _, r := range batch.Routes {
		got = append(got, fmt.Sprint(r.Index, " ", r.Field))
	}
	want := []string{"0 upstreams[0]", "0 maxBody", "3 upstreams[0]", "3 maxBody", "6 upstreams[0]", "6 maxBody", "9 upstreams[0]", "9 maxBody", "10 change", "11 path"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

func FuzzRouteJSON(f *testing.F) {
	full, _ := json.Marshal(fullRoute())
	for _, seed := range []string{
		string(full), `{}`, `{"path":"/a","upstreams":["http://a"]}`, `{"path":"/a","upstreams":[{"url":"http://a:1/b"}],"idleTimeout":"1h"}`,
		`{"host":"**.x","path":"/%61","exact":true,"upstreams":["https://[::1]:1"],"labels":{"a":"b"},"meta":[1,2]}`, `null`, `{"path":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var route slipswitch.Route
		if json.Unmarshal(text, &route) != nil {
			return
		}
		again, err := json.Marshal(route)
		if err != nil {
			t.Fatalf("%+v cannot be written: %v", route, err)
		}
		var read slipswitch.Route
		if err := json.Unmarshal(again, &read); err != nil {
			t.Fatalf("%s cannot be read back: %v", again, err)
		}
		var router slipswitch.Router
		if _, err := router.Apply(nil, slipswitch.Change{Put: &route}); err != nil {
			return
		}
		if version, err := router.Apply(nil, slipswitch.Change{Put: &read}); err != nil || version != 1 {
			t.Errorf("what was read back is another route: %s, %v", again, err)
		}
		for e := range router.Table().All() {
			if version, err := router.Apply(nil, slipswitch.Change{Put: e.Route()}); err != nil || version != 1 {
				t.Errorf("a route from the table is another route when put: %+v, %v", e.Route(), err)
			}
			if version, _ := router.Apply(nil, slipswitch.Change{Delete: new(e.Key())}); version != 2 {
				t.Errorf("its key does not delete it: %+v", e.Route())
			}
		}
	})
}
