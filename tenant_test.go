package slipswitch_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// Two tenants on one host: neither sees the platform's session, and what they
// set is theirs alone.
func ExampleHeaders() {
	workspace := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("workspace sees:", r.Header.Get("Cookie"))
		w.Header().Add("Set-Cookie", "theme=dark; Path=/; Domain=example.com")
		w.Header().Add("Set-Cookie", "session=stolen; Path=/")
		w.Header().Set("Location", "/login")
		w.WriteHeader(http.StatusFound)
	}))
	defer workspace.Close()
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	proxy.Router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{
		Path: "/ide-7", StripPath: true, RestorePath: true, Tenant: true,
		Upstreams: slipswitch.To(workspace.URL),
		Headers:   slipswitch.Headers{HideCookies: []string{"session"}},
	}})
	request := httptest.NewRequest("GET", "/ide-7/", nil)
	request.Header.Set("Cookie", "session=secret; theme=light")
	recorder := httptest.NewRecorder()
	proxy.ServeHTTP(recorder, request)
	fmt.Println(recorder.Header()["Set-Cookie"], recorder.Header().Get("Location"))
	// Output:
	// workspace sees: theme=light
	// [theme=dark; Path=/ide-7] /ide-7/login
}

// eachAnswer answers a plain request, a refused handshake and a handshake with
// header lines, and hands over what the client gets.
func eachAnswer(t *testing.T, r slipswitch.Route, target string, lines, request_ []string) (answers []answer) {
	t.Helper()
	for _, way := range []struct{ reply, raw string }{
		{ok("", lines...), request("GET", target, request_...)},
		{ok("", lines...), handshake(target, request_...)},
		{switching(lines...), handshake(target, request_...)},
	} {
		u := answering(t, way.reply)
		r.Upstreams = slipswitch.To(u.url + "/base")
		g := startGateway(t, &slipswitch.Proxy{}, r)
		answers = append(answers, g.do(way.raw))
	}
	return answers
}

// TestTenantCookies: what a tenant sets reaches no other path, whatever it says.
func TestTenantCookies(t *testing.T) {
	tenant := slipswitch.Route{Path: "/ws/a", Tenant: true}
	stripped := slipswitch.Route{Path: "/ws/a", Tenant: true, StripPath: true}
	restored := slipswitch.Route{Path: "/ws/a", RestorePath: true, StripPath: true}
	sticky := slipswitch.Route{Path: "/ws/a", Sticky: slipswitch.Sticky{Cookie: "lb"}}
	hidden := slipswitch.Route{Path: "/ws/a", Headers: slipswitch.Headers{HideCookies: []string{"session", "_auth*"}}}
	for _, test := range []struct {
		route     slipswitch.Route
		set, want string
	}{
		{tenant, "a=b", "a=b; Path=/ws/a"},
		{tenant, "a=b; Path=/; Secure", "a=b; Secure; Path=/ws/a"},
		{tenant, "a=b;path=/ws/b;Domain=example.com;HttpOnly", "a=b;HttpOnly; Path=/ws/a"},
		{tenant, "a=b; Path=/ws/a/x; DOMAIN = .example.com", "a=b; Path=/ws/a/x"},
		{tenant, "a=b; Path=/ws/a; Path=/", "a=b; Path=/ws/a"},
		{tenant, "a=b; Path=/; Path=/ws/a/x", "a=b; Path=/ws/a/x"},
		{tenant, "a=b; Path", "a=b; Path=/ws/a"},
		{tenant, "a=b; Path=/ws/ab", "a=b; Path=/ws/a"},
		{tenant, "a=b; \tpath\t=\t/", "a=b; Path=/ws/a"},
		{tenant, "a=\"b; Path=/ws/a/x\"; Path=/", "a=\"b; Path=/ws/a"},
		{tenant, "=session=evil; Path=/", ""},
		{tenant, "session", ""},
		{stripped, "a=b; Path=/x", "a=b; Path=/ws/a/x"},
		{stripped, "a=b; Path=/", "a=b; Path=/ws/a"},
		{stripped, "a=b; Path=/ws/a/x", "a=b; Path=/ws/a/x"},
		{stripped, "a=b", "a=b; Path=/ws/a"},
		{restored, "a=b; Path=/x; Domain=d", "a=b; Domain=d; Path=/ws/a/x"},
		{restored, "a=b", "a=b"},
		{restored, "token", "token"},
		{restored, "token; Path=/x; Secure", "token; Secure; Path=/ws/a/x"},
		{restored, "=v; Path=/x", "=v; Path=/ws/a/x"},
		{restored, "=a=b", "=a=b"},
		{sticky, "token", "token"},
		{sticky, "=v; Path=/x", "=v; Path=/x"},
		{sticky, "=a=b", "=a=b"},
		{sticky, "lb", ""},
		{sticky, "=lb", ""},
		{sticky, "=lb=evil", ""},
		{sticky, "= lb = evil; Path=/", ""},
		{hidden, "session=evil; Path=/", ""},
		{hidden, " session =evil", ""},
		{hidden, "_auth_0=evil", ""},
		{hidden, "sessions=fine; Path=/", "sessions=fine; Path=/"},
		{hidden, "=session=evil", ""},
		{hidden, "%73ession=evil", ""},
		{hidden, "Session=fine", "Session=fine"},
	} {
		for _, a := range eachAnswer(t, test.route, "/ws/a/x", []string{"Set-Cookie: " + test.set}, nil) {
			if got := a.Header["Set-Cookie"]; strings.Join(got, "|") != test.want {
				t.Errorf("%q: got %q; want %q (%s)", test.set, got, test.want, a.Status)
			}
		}
	}
	// As the client spells the path.
	for _, a := range eachAnswer(t, slipswitch.Route{Path: "/ws/a;b", Tenant: true}, "/ws/%61;b/x", []string{"Set-Cookie: a=b"}, nil) {
		if got := a.Header.Get("Set-Cookie"); got != "a=b; Path=/ws/%61%3Bb" {
			t.Errorf("got %q", got)
		}
	}
}

// TestTenantFields: nothing of a tenant is for the whole host, and its service
// workers are in charge of its path only.
func TestTenantFields(t *testing.T) {
	lines := []string{`Clear-Site-Data: "*"`, "strict-transport-security: max-age=1", "NEL: {}", "Report-To: {}", "Alt-Svc: h3=\":443\"",
		"X-Accel-Redirect: /internal", "X-Accel-Buffering: no", "X-Sendfile: /etc/passwd", "X-Fine: yes"}
	for _, a := range eachAnswer(t, slipswitch.Route{Path: "/ws/a", Tenant: true}, "/ws/a/x", lines, nil) {
		for _, line := range lines {
			name, _, _ := strings.Cut(line, ":")
			if got := a.Header.Get(name); (got != "") != (name == "X-Fine") {
				t.Errorf("%s: %s: got %q", a.Status, name, got)
			}
		}
	}
	for _, test := range []struct{ asks, target, want string }{
		{"", "/ws/a/x", ""},
		{"/", "/ws/a/x", "/ws/a/"},
		{"/ws/a/", "/ws/a/x", "/ws/a/"},
		{"/ws/a/y/", "/ws/a/x", "/ws/a/y/"},
		{"/ws/a", "/ws/a/x", "/ws/a/"},
		{"/ws/ab/", "/ws/a/x", "/ws/a/"},
		{"/ws/a/../b/", "/ws/a/x", "/ws/a/"},
		{"/ws/a/%2e%2e/b/", "/ws/a/x", "/ws/a/"},
		{"/ws/a/..%2fb/", "/ws/a/x", "/ws/a/"},
		{`/ws/a/..\b/`, "/ws/a/x", "/ws/a/"},
		{"https://ide.example.com/", "/ws/a/x", "/ws/a/"},
		{"../", "/ws/a/x", "/ws/a/"},
	} {
		var lines []string
		if test.asks != "" {
			lines = []string{"Service-Worker-Allowed: " + test.asks}
		}
		for _, a := range eachAnswer(t, slipswitch.Route{Path: "/ws/a", Tenant: true}, test.target, lines, nil) {
			if got := a.Header.Get("Service-Worker-Allowed"); got != test.want {
				t.Errorf("%q: got %q; want %q", test.asks, got, test.want)
			}
		}
	}
	// A script at the bare path may by itself be in charge of /ws/.
	for _, a := range eachAnswer(t, slipswitch.Route{Path: "/ws/a", Tenant: true}, "/ws/a", nil, []string{"Service-Worker: script"}) {
		if got := a.Header.Get("Service-Worker-Allowed"); got != "/ws/a/" {
			t.Errorf("at the bare path: got %q; want /ws/a/", got)
		}
	}
	// The upstream need not know what it is asked for.
	hidden := slipswitch.Route{Path: "/ws/a", Tenant: true, Headers: slipswitch.Headers{HideHeaders: []string{"Service-Worker"}}}
	for _, a := range eachAnswer(t, hidden, "/ws/a", nil, []string{"Service-Worker: script"}) {
		if got := a.Header.Get("Service-Worker-Allowed"); got != "/ws/a/" {
			t.Errorf("hidden from the upstream: got %q; want /ws/a/", got)
		}
	}
}

// TestEarlyHintsOfTenants carry links, and nothing else.
func TestEarlyHintsOfTenants(t *testing.T) {
	u := answering(t, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nSet-Cookie: session=evil\r\nClear-Site-Data: \"*\"\r\n\r\n"+ok(""))
	r := route("/a", u)
	r.Tenant = true
	g := startGateway(t, &slipswitch.Proxy{}, r)
	client := g.dial()
	client.send(request("GET", "/a"))
	head, err := client.head()
	if err != nil || !strings.Contains(head, "103") || !strings.Contains(head, "Link: </x>") || strings.Contains(head, "Cookie") || strings.Contains(head, "Clear") {
		t.Errorf("got %q, %v", head, err)
	}
}

// TestHidden: the platform's session stays with the platform, also in trailers.
func TestHidden(t *testing.T) {
	seen := ""
	p := func() *slipswitch.Proxy {
		return &slipswitch.Proxy{Middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen = r.Header.Get("Cookie") + r.Header.Get("Authorization")
				next.ServeHTTP(w, r)
			})
		}}
	}
	change := func(r *slipswitch.Route) {
		r.Headers = slipswitch.Headers{HideCookies: []string{"session", "_auth*"}, HideHeaders: []string{"authorization", "X-Token"}}
	}
	eachWay(t, p, change, func(t *testing.T, send func(...string) received) {
		for cookie, want := range map[string]string{
			"session=1": "", "a=b": "a=b", "a=b; session=1; c=d": "a=b; c=d", "session=1;a=b": "a=b", "a=b;session=1": "a=b",
			"a=\"x; session=1; y\"": "a=\"x; y\"", "session": "", " session =1; a": "a", "_auth_1=x; _a=y": "_a=y", "Session=1": "Session=1", "SESSION=1; sess%69on=2": "SESSION=1",
			"%73ession=1; a%3Bb=c; %zz=d; %2573ession=e; %": "a%3Bb=c; %zz=d; %2573ession=e; %", "%5fauth%zz=1": "", "%53ession=1": "%53ession=1",
			"a; .auth=1; %2Eauth=1; +session=1; %20session=1; session[a]=1; session%00=1; [auth=1; a.auth=1": "a; a.auth=1",
			"a=b; session=1\r\nCookie: session=2; c=d":                                                       "a=b; c=d",
		} {
			got := send("Cookie: "+cookie, "Authorization: Bearer x", "X-Token: y", "X-Fine: z")
			if have := strings.Join(got.Header["Cookie"], "; "); have != want {
				t.Errorf("%q arrived as %q; want %q", cookie, have, want)
			}
			if got.Header["Authorization"] != nil || got.Header["X-Token"] != nil || got.Header["X-Fine"] == nil {
				t.Errorf("got %q", got.head)
			}
			if !strings.HasSuffix(seen, "Bearer x") {
				t.Errorf("Middleware saw %q", seen)
			}
		}
	})
	u := answering(t, ok(""))
	r := route("/a", u)
	change(&r)
	g := startGateway(t, &slipswitch.Proxy{}, r)
	g.do(request("POST", "/a", "Transfer-Encoding: chunked", "Trailer: Authorization, Cookie, X-Sum") +
		"1\r\nx\r\n0\r\nAuthorization: x\r\nCookie: session=1\r\nX-Sum: 1\r\n\r\n")
	if got := u.only(); got.Trailer.Get("X-Sum") != "1" || len(got.Trailer) != 1 {
		t.Errorf("trailer %q", got.Trailer)
	}
}

// TestHeaderRules are applied to both ways, in their order.
func TestHeaderRules(t *testing.T) {
	rules := slipswitch.HeaderRules{Remove: []string{"x-gone", "X-New"}, Set: map[string]string{"x-set": "1", "X-New": "2"}, Add: map[string]string{"X-Add": "3"}}
	change := func(r *slipswitch.Route) { r.Headers = slipswitch.Headers{Request: rules} }
	lines := []string{"X-Gone: 0", "X-Set: 0", "X-New: 0", "X-Add: 0", "X-Other: 0"}
	want := map[string]string{"X-Gone": "", "X-Set": "1", "X-New": "2", "X-Add": "0|3", "X-Other": "0"}
	eachWay(t, func() *slipswitch.Proxy { return &slipswitch.Proxy{} }, change, func(t *testing.T, send func(...string) received) {
		got := send(lines...)
		for name, want := range want {
			if have := strings.Join(got.Header[name], "|"); have != want {
				t.Errorf("request: %s: %q; want %q", name, have, want)
			}
		}
	})
	for _, a := range eachAnswer(t, slipswitch.Route{Path: "/a", Headers: slipswitch.Headers{Response: rules, HideHeaders: []string{"X-Other"}}}, "/a", lines, nil) {
		for name, want := range want {
			if have := strings.Join(a.Header[name], "|"); have != want && name != "X-Other" || name == "X-Other" && have != "" {
				t.Errorf("%s: %s: %q; want %q", a.Status, name, have, want)
			}
		}
	}
}

// TestHeaderRulesHoldInTrailers: what a rule is about is no client's to say behind
// the body; and what is removed is not made up anew.
func TestHeaderRulesHoldInTrailers(t *testing.T) {
	u := answering(t, ok("<html>", "Content-Type: image/png"))
	r := route("/a", u)
	r.Headers = slipswitch.Headers{
		Request:  slipswitch.HeaderRules{Remove: []string{"User-Agent"}, Set: map[string]string{"x-workspace": "7"}, Add: map[string]string{"X-Role": "guest"}},
		Response: slipswitch.HeaderRules{Remove: []string{"Content-Type"}},
	}
	g := startGateway(t, &slipswitch.Proxy{}, r)
	a := g.do(request("POST", "/a", "User-Agent: x", "Transfer-Encoding: chunked", "Trailer: X-Workspace, X-Role, X-Sum") +
		"0\r\nX-Workspace: 8\r\nX-Role: admin\r\nX-Sum: 1\r\n\r\n")
	got := u.only()
	if want := (http.Header{"X-Sum": {"1"}}); !maps.EqualFunc(got.Trailer, want, slices.Equal) || strings.Contains(got.head, "X-Workspace: 8") {
		t.Errorf("got %q, trailer %q", got.head, got.Trailer)
	}
	if strings.Contains(got.head, "User-Agent") {
		t.Errorf("got %q; want no User-Agent", got.head)
	}
	if said, ok := a.Header["Content-Type"]; ok {
		t.Errorf("got Content-Type %q; want none", said)
	}
}

// TestContentTypeIsNotGuessed: a file of which the upstream says nothing is not
// made a page, over HTTP/1 and HTTP/2, and also where a handshake is refused.
func TestContentTypeIsNotGuessed(t *testing.T) {
	u := answering(t, ok("<html><script>alert(1)</script>"))
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	for _, raw := range []string{request("GET", "/a"), handshake("/a")} {
		if a := g.do(raw); a.StatusCode != 200 || a.Header["Content-Type"] != nil {
			t.Errorf("got %s, Content-Type %q", a.Status, a.Header["Content-Type"])
		}
	}
	if a := g.get("/none", "Accept: text/html"); a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("the gateway's own page: got Content-Type %q", a.Header["Content-Type"])
	}
	request, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+g.addr+"/a", nil)
	request.Host = host
	response, err := http2Client(t).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if said := response.Header["Content-Type"]; response.ProtoMajor != 2 || said != nil {
		t.Errorf("%s: got Content-Type %q", response.Proto, said)
	}
}

func TestPutRefusesHeaders(t *testing.T) {
	for field, h := range map[string]slipswitch.Headers{
		"headers.hideCookies[1]":      {HideCookies: []string{"fine*", "a b"}},
		"headers.hideCookies[0]":      {HideCookies: []string{"a**"}},
		"headers.hideHeaders[0]":      {HideHeaders: []string{"a:b"}},
		"headers.request.remove[0]":   {Request: slipswitch.HeaderRules{Remove: []string{""}}},
		"headers.request.set":         {Request: slipswitch.HeaderRules{Set: map[string]string{"host": "x"}}},
		"headers.request.set.X-A":     {Request: slipswitch.HeaderRules{Set: map[string]string{"X-A": "a\r\nb"}}},
		"headers.request.add.X-A":     {Request: slipswitch.HeaderRules{Add: map[string]string{"X-A": " a"}}},
		"headers.request.add":         {Request: slipswitch.HeaderRules{Add: map[string]string{"Content-Length": "1"}}},
		"headers.response.remove[0]":  {Response: slipswitch.HeaderRules{Remove: []string{"sec-websocket-accept"}}},
		"headers.response.set":        {Response: slipswitch.HeaderRules{Set: map[string]string{"Transfer-Encoding": "chunked"}}},
		"headers.response.add":        {Response: slipswitch.HeaderRules{Add: map[string]string{"Connection": "x"}}},
		"headers.request.remove[1]":   {Request: slipswitch.HeaderRules{Remove: []string{"X-A", "via"}}}, // or a loop has no end
		"headers.hideHeaders[1]":      {HideHeaders: []string{"X-A", "Via"}},
		"headers.request.add ":        {Request: slipswitch.HeaderRules{Add: map[string]string{"X-A": "1", "x-a": "2"}}}, // in which order?
		"headers.response.set.X-Null": {Response: slipswitch.HeaderRules{Set: map[string]string{"X-Null": "\x00"}}},
	} {
		var router slipswitch.Router
		r := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://a"), Headers: h}
		_, err := router.Apply(nil, slipswitch.Change{Put: &r})
		batch, ok := errors.AsType[*slipswitch.BatchError](err)
		if !ok || len(batch.Routes) != 1 || batch.Routes[0].Field != strings.TrimSpace(field) || !strings.HasPrefix(batch.Routes[0].Want, "must ") {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

// TestLocation: what is the upstream's own gets the public prefix, all else
// stays, and nothing becomes another host.
func TestLocation(t *testing.T) {
	r := slipswitch.Route{Path: "/ws/a", StripPath: true, RestorePath: true, UpstreamHost: "ide.internal"}
	for location, want := range map[string]string{
		"/login?a=/b#c": "/ws/a/login?a=/b#c", "/": "/ws/a/", "login": "login", "./x": "./x", "../x": "../x", "?q": "?q", "": "",
		"/base/login": "/ws/a/login", "/base": "/ws/a/", "/basement": "/ws/a/basement", "/base//evil.com": "/ws/a//evil.com",
		"/ws/a/login": "/ws/a/login", "/ws/a": "/ws/a", "/ws/ab": "/ws/a/ws/ab",
		"http://ide.internal/x": "/ws/a/x", "https://ide.internal": "/ws/a/", "http://ide.internal?q": "/ws/a/?q", "http://IDE.example.com/ws/a/x": "/ws/a/x",
		"https://ide.example.com:443/x": "/ws/a/x", "//ide.example.com/x": "/ws/a/x", "http://ide.example.com:80/x": "/ws/a/x",
		"https://ide.example.com:80/x": "https://ide.example.com:80/x", "http://ide.example.com:443/x": "http://ide.example.com:443/x", "http://ide.example.com:8080/x": "http://ide.example.com:8080/x",
		"http://ide.internal:80/x": "/ws/a/x", "http://ide.internal.:80/x": "/ws/a/x", "http://ide.internal:/x": "/ws/a/x", "http://ide.internal:81/x": "http://ide.internal:81/x",
		"http://evil.com/x": "http://evil.com/x", "//evil.com/x": "//evil.com/x", "http://u@ide.internal/x": "http://u@ide.internal/x", "ftp://ide.internal/x": "ftp://ide.internal/x",
		"http://ide.internal//evil.com/": "/ws/a//evil.com/", "javascript:alert(1)": "javascript:alert(1)", "http://[": "http://[", "javascript://ide.internal/%0aalert(1)": "javascript://ide.internal/%0aalert(1)",
		"/100%": "/ws/a/100%", "/100%/?a=%zz": "/ws/a/100%/?a=%zz", "http://ide.internal/100%": "/ws/a/100%", "HTTP://ide.internal/x": "/ws/a/x",
		"/login?next=//evil.com": "/ws/a/login?next=//evil.com", "x//y": "x//y", "/x//y": "/ws/a/x//y", `http://ide.internal\@evil.com/`: `http://ide.internal\@evil.com/`,
		"http:///x": "http:///x", "http:/x": "http:/x",
	} {
		for _, a := range eachAnswer(t, r, "/ws/a/x", []string{"Location: " + location}, nil) {
			if got := a.Header.Get("Location"); got != want {
				t.Errorf("%q: got %q; want %q", location, got, want)
			}
		}
	}
	for _, location := range []string{"http://ide.example.com//evil.com/", `http://ide.example.com/\evil.com/`, `http://ide.example.com/\/\evil.com/`} {
		for _, strips := range []bool{false, true} {
			for _, a := range eachAnswer(t, slipswitch.Route{Path: "/", StripPath: strips, RestorePath: true}, "/x", []string{"Location: " + location}, nil) {
				if got := a.Header.Get("Location"); got != "/evil.com/" {
					t.Errorf("%s: got %q; want a path", location, got)
				}
			}
		}
	}
	// With the client's own port, which is part of its host.
	r.UpstreamHost = ""
	for location, want := range map[string]string{
		"http://ide.example.com:8443/x": "/ws/a/x", "https://ide.example.com:8443/x": "/ws/a/x", "https://ide.example.com/x": "https://ide.example.com/x",
	} {
		u := answering(t, ok("", "Location: "+location))
		r.Upstreams = slipswitch.To(u.url)
		g := startGateway(t, &slipswitch.Proxy{}, r)
		if got := g.do("GET /ws/a/x HTTP/1.1\r\nHost: " + host + ":8443\r\n\r\n").Header.Get("Location"); got != want {
			t.Errorf("%q: got %q; want %q", location, got, want)
		}
	}
	u := startUpstream(t, func(r received) string { return ok("", "Location: http://"+r.Header.Get("X-Up")+"/x") })
	own := route("/ws/a", u)
	own.StripPath, own.RestorePath = true, true
	g := startGateway(t, &slipswitch.Proxy{}, own)
	if got := g.get("/ws/a/", "X-Up: "+strings.TrimPrefix(u.url, "http://")).Header.Get("Location"); got != "/ws/a/x" {
		t.Errorf("the upstream's address: got %q; want /ws/a/x", got)
	}
}

// TestLocationOfPublicHost: an upstream may name itself as the trusted proxies say
// that the client does.
func TestLocationOfPublicHost(t *testing.T) {
	r := slipswitch.Route{Path: "/ws/a", StripPath: true, RestorePath: true}
	for _, test := range []struct{ said, location, want string }{
		{"X-Forwarded-Host: pub.example.com", "https://pub.example.com/x", "/ws/a/x"},
		{"X-Forwarded-Host: pub.example.com:8443", "https://Pub.example.com:8443/x", "/ws/a/x"},
		{"X-Forwarded-Host: pub.example.com:8443", "https://pub.example.com/x", "https://pub.example.com/x"},
		{"X-Forwarded-Host: pub.example.com\r\nX-Forwarded-Port: 8443", "https://pub.example.com:8443/x", "/ws/a/x"},
		{"X-Forwarded-Host: [2001:db8::1]:8443", "https://[2001:DB8::1]:8443/x", "/ws/a/x"},
		{"Forwarded: host=pub.example.com", "//pub.example.com/x", "/ws/a/x"},
	} {
		for trusted, want := range map[bool]string{true: test.want, false: test.location} {
			u := answering(t, ok("", "Location: "+test.location))
			r.Upstreams = slipswitch.To(u.url)
			p := &slipswitch.Proxy{}
			if trusted {
				p.TrustedProxies = loopback
			}
			g := startGateway(t, p, r)
			if got := g.get("/ws/a/x", test.said).Header.Get("Location"); got != want {
				t.Errorf("%q, trusted %v: %q: got %q; want %q", test.said, trusted, test.location, got, want)
			}
		}
	}
}

// TestSameOrigin: pages of other hosts get no socket.
func TestSameOrigin(t *testing.T) {
	u := answering(t, switching())
	r := route("/a", u)
	r.SameOrigin = true
	g := startGateway(t, &slipswitch.Proxy{}, r)
	for origin, want := range map[string]int{
		"": 101, "http://" + host: 101, "https://IDE.example.com": 101,
		"http://evil.com": 403, "http://" + host + ":8080": 403, "http://" + host + ".evil.com": 403, "null": 403, host: 403, "http://evil.com/" + host: 403,
		"http://" + host + "@evil.com": 403, "http://" + host + "\r\nOrigin: http://evil.com": 403, "%": 403,
	} {
		var lines []string
		if origin != "" {
			lines = []string{"Origin: " + origin}
		}
		if a := g.do(handshake("/a", lines...)); a.StatusCode != want {
			t.Errorf("%q: got %s; want %d", origin, a.Status, want)
		}
	}
	if a := g.do(strings.Replace(handshake("/a", "Origin: http://"+host+":8080"), "Host: "+host, "Host: "+host+":8080", 1)); a.StatusCode != 101 {
		t.Errorf("with ports: got %s", a.Status)
	}
	if n := slices.IndexFunc(u.all(), func(r received) bool { return strings.Contains(r.head, "evil") }); n >= 0 {
		t.Error("the upstream was asked")
	}

	// RFC 6454: default ports, case and trailing dots mean nothing.
	p := &slipswitch.Proxy{TrustedProxies: loopback}
	g = startGateway(t, p, r)
	for _, test := range []struct {
		host, said, origin string
		want               int
	}{
		{"ide.example.com:80", "", "http://ide.example.com", 101},
		{"ide.example.com:443", "", "https://ide.example.com", 101},
		{"ide.example.com", "", "https://ide.example.com:443", 101},
		{"ide.example.com", "", "http://ide.example.com:443", 403},
		{"ide.example.com:80", "", "https://ide.example.com", 403},
		{"ide.example.com.", "", "https://ide.example.com.", 101},
		{"ide.example.com.:8443", "", "https://IDE.example.com:8443", 101},
		{"ide.example.com", "", "HTTPS://ide.example.com", 101},
		{"ide.example.com", "", "ftp://ide.example.com", 403},
		{"ide.example.com", "", "//ide.example.com", 403},
		{"ide.example.com", "", "https://ide.example.com/", 403},
		{"ide.example.com", "", "https://ide.example.com https://evil.com", 403},
		{"ide.example.com", "", "https://u@ide.example.com", 403},
		{"ide.example.com", "", "https://", 403},
		{"ide.example.com", "X-Forwarded-Proto: https", "https://ide.example.com", 101},
		{"ide.example.com", "X-Forwarded-Proto: https", "http://ide.example.com", 403}, // the host is known to be asked by https
		{"ide.example.com", "X-Forwarded-Port: 8443", "https://ide.example.com:8443", 101},
		{"ide.example.com", "X-Forwarded-Port: 8443", "https://ide.example.com", 101}, // it may be the proxy's own port
		{"ide.example.com", "X-Forwarded-Host: pub.example.com", "https://pub.example.com", 101},
		{"ide.example.com", "X-Forwarded-Host: pub.example.com", "https://ide.example.com", 403},
		{"ide.example.com", "Forwarded: host=pub.example.com;proto=https", "https://pub.example.com", 101},
	} {
		lines := []string{"Origin: " + test.origin}
		if test.said != "" {
			lines = append(lines, test.said)
		}
		if a := g.do(strings.Replace(handshake("/a", lines...), "Host: "+host, "Host: "+test.host, 1)); a.StatusCode != test.want {
			t.Errorf("%+v: got %s", test, a.Status)
		}
	}
}

// hides is what FuzzCookies hides, as some server or other reads it.
func hides(name string) bool {
	name = spaces.ReplaceAllString(strings.Trim(strings.ToValidUTF8(name, " "), "\u0080\u0085\u00a0\u00ff"), "")
	decoded := spaces.ReplaceAllString(decode(name), "")
	variable := unnamed.ReplaceAllString(rest.ReplaceAllString(strings.TrimLeft(decoded, " +"), "$1"), "_")
	return slices.ContainsFunc([]string{name, decoded, variable}, func(s string) bool { return s == "session" || strings.HasPrefix(s, "_auth") })
}

var (
	spaces  = regexp.MustCompile(`^[\x00- ]+|[\x00- ]+$`)
	escapes = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	rest    = regexp.MustCompile(`(?s)(.)[\x00[].*`)
	unnamed = regexp.MustCompile(`[.+ \[]`)
)

func decode(name string) string {
	return escapes.ReplaceAllStringFunc(name, func(escape string) string {
		b, _ := hex.DecodeString(escape[1:])
		return string(b)
	})
}

// FuzzCookies: whatever the fields are, no hidden cookie passes, as a server or
// a browser reads it, and no other one is changed. What a tenant sets has no
// domain, and a path within its own.
func FuzzCookies(f *testing.F) {
	for _, seed := range []string{"session=1", "a=b; session=1; c=d", "a=\"x; session=1\"; _auth_1", " session\t=1;;=session=2", "Session=1, session=2",
		"a=b; Path=/; Domain=x; path=/ws/a/x", "a=b; Path=/ws/a/x;Path=/", "\xa0session=1", "a=b; Path=/ws/ab", "session", "=;=", "a=b; Path =\t/ws/a?x ; Secure",
		"%73ession=1; %zz=2", "+.auth=1; session[=2", "%20s%65ssion%00x=1", "SESSION=1; %2573ession=2; [auth"} {
		f.Add(seed, seed)
	}
	hidden := &slipswitch.Route{Headers: slipswitch.Headers{HideCookies: []string{"session", "_auth*"}}}
	tenant := &slipswitch.Route{Tenant: true, Headers: hidden.Headers}
	stripped := &slipswitch.Route{Tenant: true, StripPath: true, RestorePath: true, Headers: hidden.Headers}
	f.Fuzz(func(t *testing.T, one, two string) {
		if strings.ContainsFunc(one+two, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return // no header's value
		}
		header := http.Header{"Cookie": {one, two}}
		before := cookiesOf(header)
		hidden.Outgoing(header)
		want := slices.DeleteFunc(before, func(c string) bool { name, _, _ := strings.Cut(c, "="); return hides(name) })
		if got := cookiesOf(header); isASCII(decode(one+two)) && !slices.Equal(got, want) {
			t.Errorf("request %q, %q: got %q; want %q", one, two, got, want)
		}
		for _, c := range (&http.Request{Header: header}).Cookies() {
			if hides(c.Name) {
				t.Errorf("request %q, %q: %q passes in %q", one, two, c, header)
			}
		}
		header = http.Header{"Set-Cookie": {one, two}}
		hidden.Incoming(header, "/ws/a")
		for _, set := range header["Set-Cookie"] {
			if set != one && set != two {
				t.Errorf("response %q, %q: got %q", one, two, set)
			}
		}
		for _, set := range []string{one, two} {
			pair, _, _ := strings.Cut(set, ";")
			name, _, found := strings.Cut(pair, "=")
			name = strings.Trim(name, " \t")
			if passes, want := slices.Contains(header["Set-Cookie"], set), found && name != "" && !hides(name); passes && !want || !passes && want && isASCII(decode(name)) {
				t.Errorf("response %q: passes: %v; want %v", set, passes, want)
			}
		}
		for _, r := range []*slipswitch.Route{tenant, stripped} {
			header := http.Header{"Set-Cookie": {one, two}}
			r.Incoming(header, "/ws/a")
			for _, set := range header["Set-Cookie"] {
				name, path, domain := readSetCookie(set)
				if rest, within := strings.CutPrefix(path, "/ws/a"); name == "" || hides(name) || domain || !within || rest != "" && !strings.ContainsRune("/?#", rune(rest[0])) {
					t.Errorf("response %q, %q: got %q", one, two, set)
				}
			}
		}
	})
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(c rune) bool { return c >= 0x7f }) }

// cookiesOf takes a request's cookies apart as servers do, empty ones left out.
func cookiesOf(header http.Header) (list []string) {
	for _, field := range header["Cookie"] {
		for pair := range strings.SplitSeq(field, ";") {
			if pair = strings.Trim(pair, " \t"); pair != "" {
				list = append(list, pair)
			}
		}
	}
	return list
}

// readSetCookie reads what browsers do (RFC 6265 §5.2): the last attribute of a
// name is the one that counts.
func readSetCookie(set string) (name, path string, domain bool) {
	parts := strings.Split(set, ";")
	name, _, _ = strings.Cut(parts[0], "=")
	for _, part := range parts[1:] {
		attribute, value, _ := strings.Cut(part, "=")
		switch strings.ToLower(strings.Trim(attribute, " \t")) {
		case "path":
			path = strings.Trim(value, " \t")
		case "domain":
			domain = true
		}
	}
	return strings.Trim(name, " \t"), path, domain
}
