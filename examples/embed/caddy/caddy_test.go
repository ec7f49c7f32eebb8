package caddyslipswitch_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	caddyslipswitch "github.com/slipswitch/slipswitch/examples/embed/caddy"
	"github.com/slipswitch/slipswitch/examples/embed/embedtest"
)

// TestCaddy: all that is true of other servers.
func TestCaddy(t *testing.T) {
	embedtest.CheckStarted(t, func(t *testing.T, behindTimeout bool) *embedtest.Gateway {
		directives := "\tslipswitch\n\tencode gzip"
		if behindTimeout {
			directives += "\n\ttest_timeout"
		}
		c := start(t, directives)
		return &embedtest.Gateway{Addr: c.addr, Router: caddyslipswitch.RouterOf("default")}
	})
}

// echo is an upstream of sockets; to all else it answers with its name.
func echo(t *testing.T, name string) (addr string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.Write([]byte(name + " " + r.Header.Get("X-Forwarded-For")))
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestReload: sockets and the routes put by REST outlive it, whatever it
// changes, and the configuration's routes are the new one's.
func TestReload(t *testing.T) {
	one, two := echo(t, "one"), echo(t, "two")
	c := start(t, "slipswitch {\n route /ide-7 "+one+"\n route /ide-8 "+one+"\n}")
	if status, body := c.rest("PUT", "/slipswitch/default/v1/route?path=/rest", `{"path": "/rest", "upstreams": ["http://`+one+`"]}`); status != 201 {
		t.Fatalf("got %d %s; want 201", status, body)
	}
	sockets := []socket{c.open("/ide-7"), c.open("/ide-8/x"), c.open("/rest")}
	for _, directives := range []string{
		"slipswitch {\n route /ide-7 " + two + "\n route /ide-8 " + one + "\n}",                // another upstream
		"slipswitch {\n route /ide-7 " + two + "\n}",                                           // a route less
		"slipswitch {\n route /ide-7 " + two + "\n trusted_proxies 10.0.0.0/8 10.0.0.1\n}",     // another Proxy
		"handle /ide-* {\n slipswitch {\n route /ide-7 " + two + "\n}\n}\nslipswitch /rest",    // other handlers
		"slipswitch {\n route /ide-7 " + two + "\n}\nheader X-A b",                             // something else
		"slipswitch {\n route /ide-9 " + two + " " + one + " {\n idle_timeout 1h\n }\n}\n",     // another route
		"slipswitch {\n route /ide-7 " + two + "\n}\nslipswitch {\n route /x " + two + "\n}\n", // several
	} {
		c.reload(directives)
		for _, s := range sockets {
			s.lives(directives)
		}
		c.want("/rest", 200, "one 127.0.0.1")
	}
	c.want("/ide-7", 200, "two 127.0.0.1")
	c.want("/ide-8", 404, "no page")

	c.reload("") // nothing holds them any more
	for _, s := range sockets {
		s.ends(websocket.StatusServiceRestart)
	}
	gone(t, "default")
	if status, _ := c.rest("GET", "/slipswitch/default/v1/status", ""); status != 404 {
		t.Errorf("got %d; want 404", status)
	}
}

// TestRefusedConfiguration changes nothing, wherever it fails.
func TestRefusedConfiguration(t *testing.T) {
	one, two := echo(t, "one"), echo(t, "two")
	c := start(t, "slipswitch {\n route /ide-7 "+one+"\n}")
	s := c.open("/ide-7")
	data := filepath.Join(t.TempDir(), "routes.db")
	for directives, want := range map[string]string{
		"slipswitch {\n route /ide-7 " + two + "\n route /b " + two + " {\n max_body -1\n}\n}": "maxBody",
		"slipswitch {\n route /ide-7 " + two + "\n route /ide-7 " + one + "\n}":                "twice",
		"slipswitch {\n trusted_proxies nobody\n}":                                             `"nobody" must be`,
		"slipswitch {\n name a/b\n}":                                                           "must be letters",
		"slipswitch {\n route /ide-7 " + two + "\n data " + data + "\n}":                       "a reload cannot change it",
		"slipswitch {\n data a\n}\nslipswitch {\n data b\n}":                                   "for another",
		// The http app cannot start, before or behind slipswitch.
		"slipswitch {\n route /ide-7 " + two + "\n}\n}\nhttp://127.0.0.1:1 {\nbind 192.0.2.1\n": "192.0.2.1",
	} {
		for range 5 { // Caddy starts its apps in a random order
			if err := c.load(directives); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v; want %s", directives, err, want)
			}
			s.lives(directives)
			if status, body := c.ask("/ide-7"); status != 200 || body != "one 127.0.0.1" {
				t.Fatalf("%s: got %d %q; want the routes as they were", directives, status, body)
			}
		}
	}

	c.reload("") // no refused one holds what is shared
	s.ends(websocket.StatusServiceRestart)
	gone(t, "default")
}

// TestData: with a file, routes put by REST outlive Caddy.
func TestData(t *testing.T) {
	one := echo(t, "one")
	directives := "slipswitch {\n data " + filepath.Join(t.TempDir(), "routes.db") + "\n}"
	c := start(t, directives)
	if status, body := c.rest("PUT", "/slipswitch/default/v1/route?path=/rest", `{"path": "/rest", "upstreams": ["http://`+one+`"]}`); status != 201 {
		t.Fatalf("got %d %s; want 201", status, body)
	}
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprintf(`{"put": {"path": "/many-%d", "upstreams": ["http://%s"]}}`, i, one)
	}
	for _, changes := range []string{strings.Join(many, ","), ""} { // all of them go again, but for one that stays
		body := `{"replace": true, "changes": [{"put": {"path": "/rest", "upstreams": ["http://` + one + `"]}}` + strings.TrimSuffix(","+changes, ",") + `]}`
		if status, answer := c.rest("POST", "/slipswitch/default/v1/batch", body); status != 200 {
			t.Fatalf("got %d %s; want 200", status, answer)
		}
	}
	if n := caddyslipswitch.RouterOf("default").Table().Len(); n != 1 {
		t.Errorf("got %d routes; want 1", n)
	}
	c.reload("")
	gone(t, "default")
	c.reload(directives)
	c.want("/rest", 200, "one 127.0.0.1")
	if status, body := c.rest("GET", "/slipswitch/default/v1/routes", ""); status != 200 || !strings.Contains(body, `"/rest"`) {
		t.Errorf("got %d %s", status, body)
	}
}

// TestREST: by Caddy's endpoint it is what it is by itself, and for nobody else.
func TestREST(t *testing.T) {
	one := echo(t, "one")
	c := start(t, "slipswitch {\n name a\n}\nslipswitch {\n name b\n}")
	if status, body := c.rest("PUT", "/slipswitch/a/v1/route?path=/x%252Fy", `{"upstreams": ["http://`+one+`"]}`); status != 201 {
		t.Fatalf("got %d %s; want 201", status, body)
	}
	if status, body := c.rest("GET", "/slipswitch/a/v1/routes", ""); status != 200 || !strings.Contains(body, `"/x%2Fy"`) {
		t.Errorf("got %d %s; want the route", status, body)
	}
	if status, body := c.rest("GET", "/slipswitch/b/v1/routes", ""); status != 200 || strings.Contains(body, "%2F") {
		t.Errorf("got %d %s; want no route of the other name", status, body)
	}
	c.want("/x%2Fy", 200, "one 127.0.0.1")
	c.want("/x/y", 404, "no page")
	for _, target := range []string{"/slipswitch/c/v1/routes", "/slipswitch/", "/slipswitch/a/v1/nothing"} {
		if status, body := c.rest("GET", target, ""); status != 404 {
			t.Errorf("%s: got %d %s; want 404", target, status, body)
		}
	}
	s := c.open("/x%2Fy")
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) { // a client may know of its 101 before the list does
		status, body := c.rest("DELETE", "/slipswitch/a/v1/tunnels?path=/x%252Fy&code=4000&reason=mine", "")
		if status == 202 && strings.Contains(body, `"closing":1`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %d %s; want one socket to be closed", status, body)
		}
	}
	s.ends(4000)
}

// TestHandleErrors: Caddy's way to answer errors is the user's.
func TestHandleErrors(t *testing.T) {
	c := start(t, "slipswitch {\n route /ide-7 127.0.0.1:1\n}\nhandle_errors {\n respond \"{err.status_code} of mine\"\n}")
	c.want("/ide-7", 502, "502 of mine")
	c.reload("slipswitch {\n route /ide-7 127.0.0.1:1\n}")
	c.want("/ide-7", 502, "")
}

// TestTrustedProxies: a client's word counts only if it is one of them.
func TestTrustedProxies(t *testing.T) {
	one := echo(t, "one")
	c := start(t, "slipswitch {\n route / "+one+"\n}")
	for directives, want := range map[string]string{
		"slipswitch {\n route / " + one + "\n}":                                       "one 127.0.0.1",
		"slipswitch {\n route / " + one + "\n trusted_proxies private_ranges\n}":      "one 198.51.100.1, 127.0.0.1",
		"slipswitch {\n route / " + one + "\n trusted_proxies 127.0.0.1\n}":           "one 198.51.100.1, 127.0.0.1",
		"slipswitch {\n route / " + one + "\n trusted_proxies 10.0.0.0/8 fd00::/8\n}": "one 127.0.0.1",
	} {
		c.reload(directives)
		c.want("/", 200, want)
	}
}
