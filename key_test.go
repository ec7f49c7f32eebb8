package slipswitch_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// found looks up in a router that has one route.
func found(t *testing.T, route slipswitch.Key, host, path string) bool {
	t.Helper()
	var router slipswitch.Router
	put(t, &router, slipswitch.Route{Host: route.Host, Path: route.Path, Exact: route.Exact, Upstreams: slipswitch.To("http://up")})
	_, err := router.Lookup(host, path)
	if err != nil && !errors.Is(err, slipswitch.ErrNoRoute) {
		t.Errorf("Lookup(%q, %q): %v", host, path, err)
	}
	return err == nil
}

func put(t testing.TB, router *slipswitch.Router, routes ...slipswitch.Route) {
	t.Helper()
	if _, err := router.Update(func(tx *slipswitch.Txn) error {
		for _, r := range routes {
			tx.Put(r)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestPathsThatAreOne(t *testing.T) {
	for _, test := range []struct {
		route, path string
		want        bool
	}{
		{"/a/ide-1", "/a/ide-1", true},
		{"/a/ide-1", "/a/ide-1/", true},
		{"/a/ide-1", "/a/ide-1/x", true},
		{"/a/ide-1", "/a/ide-1//x", true},
		{"/a/ide-1", "/a/ide-12", false},
		{"/a/ide-1", "/a/ide-", false},
		{"/a/ide-1", "/a", false},
		{"/a/ide-1", "//a/ide-1", false},
		{"/a/ide-1/", "/a/ide-1", true},
		{"/", "/", true},
		{"/", "/x", true},
		{"/", "", true},
		{"/a", "/%61/x", true},
		{"/%61", "/a/x", true},
		{"/user/@x", "/user/%40x", true},
		{"/user/%40x", "/user/@x", true},
		{"/a%2Fb", "/a%2fb/x", true},
		{"/a%2Fb", "/a/b", false},
		{"/a/b", "/a%2Fb", false},
		{"/a%25", "/a%25/x", true},
		{"/a%2541", "/aA", false},     // decoded once
		{"/a%252Fb", "/a%2Fb", false}, // never twice
		{"/ü", "/%C3%BC", true},
		{"/a/b", "/a/./b", true},
		{"/a/b", "/a/x/../b", true},
		{"/a/b", "/a/x/%2e%2E/b", true},
		{"/a/b", "/../../a/b", true},
		{"/a/b", "/a/b/..", false},
		{"/a/b", "/a/b/../b", true},
		{"/a/b", "/a/b/%2e", true},
		{"/a/...", "/a/...", true},
		{"/a/..%2fb", "/a/..%2Fb", true}, // one segment, and no dot segment
		{"/a//b", "/a//b", true},
		{"/a//b", "/a/b", false},
		{"/b", "/a/..%2fb", false},
	} {
		if got := found(t, slipswitch.Key{Path: test.route}, "h", test.path); got != test.want {
			t.Errorf("route %q matches %q: got %v; want %v", test.route, test.path, got, test.want)
		}
	}
}

func TestExactPaths(t *testing.T) {
	for _, test := range []struct {
		route, path string
		want        bool
	}{
		{"/a", "/a", true},
		{"/a", "/a/", false},
		{"/a", "/a/b", false},
		{"/a/", "/a/", true},
		{"/a/", "/a", false},
		{"/", "/", true},
		{"/", "/a", false},
		{"/%61", "/a", true},
	} {
		if got := found(t, slipswitch.Key{Path: test.route, Exact: true}, "h", test.path); got != test.want {
			t.Errorf("exact route %q matches %q: got %v; want %v", test.route, test.path, got, test.want)
		}
	}
}

func TestHostPatterns(t *testing.T) {
	for _, test := range []struct {
		route, host string
		want        bool
	}{
		{"", "", true},
		{"", "any.example", true},
		{"ide.example.com", "ide.example.com", true},
		{"ide.example.com", "IDE.Example.COM:8443", true},
		{"ide.example.com", "ide.example.com.", true},
		{"IDE.example.com.", "ide.example.com.:80", true},
		{"ide.example.com", "ide.example.com:", true},
		{"ide.example.com", "", false},
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "a.b.example.com", false},
		{"*.example.com", "example.com", false},
		{"**.example.com", "a.example.com", true},
		{"**.example.com", "a.b.example.com:1", true},
		{"**.example.com", "example.com", false},
		{"**.example.com", "badexample.com", false},
		{"127.0.0.1", "127.0.0.1:80", true},
		{"::1", "[::1]:80", true},
		{"[::1]", "[0:0::1]", true},
		{"::1", "[::2]", false},
	} {
		if got := found(t, slipswitch.Key{Host: test.route, Path: "/"}, test.host, "/"); got != test.want {
			t.Errorf("route for host %q matches %q: got %v; want %v", test.route, test.host, got, test.want)
		}
	}
}

func TestHostLevels(t *testing.T) {
	var router slipswitch.Router
	for _, host := range []string{"a.b.x", "*.b.x", "**.b.x", "**.x", ""} {
		put(t, &router, slipswitch.Route{Host: host, Path: "/", Upstreams: slipswitch.To("http://root")})
	}
	put(t, &router,
		slipswitch.Route{Host: "a.b.x", Path: "/long/path", Upstreams: slipswitch.To("http://up")},
		slipswitch.Route{Host: "a.b.x", Path: "/long/path", Exact: true, Upstreams: slipswitch.To("http://up")},
		slipswitch.Route{Host: "only.y", Path: "/here", Upstreams: slipswitch.To("http://up")},
		slipswitch.Route{Host: "", Path: "/longest/path/of/all", Upstreams: slipswitch.To("http://up")})
	for _, test := range []struct{ host, path, want string }{
		{"a.b.x", "/q", "a.b.x/"},
		{"c.b.x", "/q", "*.b.x/"},
		{"d.c.b.x", "/q", "**.b.x/"},
		{"c.x", "/q", "**.x/"},
		{"c.b.c.x", "/q", "**.x/"},
		{"z", "/q", "/"},
		{"a.b.x", "/long/path/x", "a.b.x/long/path"},
		{"a.b.x", "/long/path", "=a.b.x/long/path"},
		{"a.b.x", "/longest/path/of/all", "a.b.x/"}, // the host comes first
		{"only.y", "/here", "only.y/here"},
		{"only.y", "/there", "/"}, // a host without a route for the path falls through
	} {
		match, err := router.Lookup(test.host, test.path)
		if err != nil {
			t.Errorf("Lookup(%q, %q): %v", test.host, test.path, err)
			continue
		}
		if got := match.Key().String(); got != test.want {
			t.Errorf("Lookup(%q, %q): got %q; want %q", test.host, test.path, got, test.want)
		}
	}
}

func TestLookupRefuses(t *testing.T) {
	var router slipswitch.Router
	put(t, &router, slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://up")})
	for _, test := range []struct{ host, path string }{
		{"h", "a"}, {"h", "/%zz"}, {"h", "/a b"}, {"h", "/long/enough/for/words/and/then/\\"}, {"h:x", "/"}, {"[::1", "/"},
	} {
		_, err := router.Lookup(test.host, test.path)
		if e, ok := errors.AsType[*slipswitch.Error](err); !ok || e.Status != 400 {
			t.Errorf("Lookup(%q, %q): got error %v; want a 400", test.host, test.path, err)
		}
	}
}

// FuzzLookupPath: a lookup's Path can be looked up again, and can be the path of
// an exact route, which is found by what was looked up at first.
func FuzzLookupPath(f *testing.F) {
	for _, seed := range []string{
		"/", "/a", "/a/b", "/%61", "/a/../b", "/a/%2e%2e/b", "/..%2f", "/%252e", "//a", "/a//", "/a/.", "/a%2Fb/%25/@/%40",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		var router slipswitch.Router
		put(t, &router, slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://up")})
		match, err := router.Lookup("h", path)
		if err != nil {
			return
		}
		again, err := router.Lookup("h", match.Path)
		if err != nil || again.Path != match.Path {
			t.Errorf("%q was resolved to %q, and that to %q, %v", path, match.Path, again.Path, err)
		}
		if len(match.Path) <= slipswitch.MaxPath && !strings.Contains(match.Path, "?") {
			put(t, &router, slipswitch.Route{Path: match.Path, Exact: true, Upstreams: slipswitch.To("http://up")})
			if m, err := router.Lookup("h", path); err != nil || !m.Key().Exact {
				t.Errorf("the exact route %q is not found by %q: %v, %v", match.Path, path, m.Route(), err)
			}
		}
	})
}
