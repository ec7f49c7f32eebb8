package admin_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

func TestToken(t *testing.T) {
	s := serve(t, &admin.Handler{})
	for _, test := range []struct {
		authorization string
		want          bool
	}{
		{"Bearer s3cret", true},
		{"token s3cret", true},
		{"bearer s3cret", true},
		{"Token   s3cret", true},
		{"", false},
		{"s3cret", false},
		{"token", false},
		{"token ", false},
		{"token s3cre", false},
		{"token s3cretX", false},
		{"token s3cret X", false},
		{"token Xs3cret", false},
		{"X token s3cret", false},
		{"Xtoken s3cret", false},
		{"token S3CRET", false},
		{"token token s3cret", false},
		{"Basic s3cret", false},
		{"token\ts3cret", false},
	} {
		refused := map[string]int{"/v1/status": 401, "/api/routes": 403}
		for target, status := range refused {
			if test.want {
				status = 200
			}
			got := s.do("GET", target, "", "Authorization: "+test.authorization)
			if got.status != status {
				t.Errorf("GET %s, Authorization %q: got %d; want %d", target, test.authorization, got.status, status)
			}
			if status == 403 && got.body != "" {
				t.Errorf("GET %s, Authorization %q: got body %q; want none", target, test.authorization, got.body)
			}
			if status == 401 && got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("GET %s, Authorization %q: WWW-Authenticate is missing", target, test.authorization)
			}
		}
	}
	twice := head("GET /v1/status", "Authorization: token s3cret", "Authorization: token s3cret")
	if got := s.raw(twice); got.status != 401 {
		t.Errorf("two Authorization fields: got %d; want 401", got.status)
	}
	for _, target := range []string{"/", "/nothing", "/api/routesX", "/v1", "/v1/nothing", "/v1/batch"} {
		for _, method := range []string{"GET", "PATCH"} {
			if got := s.do(method, target, "", "Authorization: "); got.status != 401 || !strings.Contains(got.body, "Authorization: Bearer TOKEN") || got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s without a token: got %d %q; want 401, and what to send", method, target, got.status, got.body)
			}
		}
	}
}

func TestNoTokenConfigured(t *testing.T) {
	router := new(slipswitch.Router)
	for _, test := range []struct {
		handler *admin.Handler
		want    int
	}{
		{&admin.Handler{Router: router}, 401},
		{&admin.Handler{Router: router, Open: true}, 200},
		{&admin.Handler{Router: router, Open: true, Token: "x"}, 401},
	} {
		s := &server{t, httptest.NewServer(test.handler), router}
		defer s.Close()
		for _, authorization := range []string{"", "Bearer ", "token"} {
			got := s.do("GET", "/v1/status", "", "Authorization: "+authorization)
			if got.status != test.want {
				t.Errorf("Token %q, Open %v: got %d; want %d", test.handler.Token, test.handler.Open, got.status, test.want)
			}
		}
	}
}

// A body that never ends is not waited for: the token is checked first.
func TestTokenBeforeBody(t *testing.T) {
	s := serve(t, &admin.Handler{})
	for _, request := range []string{"PUT /v1/route?path=/a", "POST /v1/batch", "POST /api/routes/a", "DELETE /api/routes/a", "GET /v1/status"} {
		for _, framing := range []string{"Transfer-Encoding: chunked", "Content-Length: 1000", "Content-Length: 1000000000000"} {
			want := 401
			if strings.Contains(request, "/api/") {
				want = 403
			}
			for _, expect := range []string{"", "Expect: 100-continue"} {
				header := []string{"Content-Type: application/json", "Authorization: token wrong", framing}
				if expect != "" {
					header = append(header, expect)
				}
				got := s.raw(head(request, header...) + "5\r\n{\"a\":\r\n")
				if got.status != want {
					t.Errorf("%s %s %s: got %d; want %d", request, framing, expect, got.status, want)
				}
			}
		}
	}
}

// A page of a host that an attacker controls can let its name point at this
// server, and can send requests to it.
func TestBrowsersAreKeptOut(t *testing.T) {
	s := serve(t, &admin.Handler{Hosts: []string{"Admin.example.com"}, Open: true})
	own := strings.TrimPrefix(s.URL, "http://")
	for _, test := range []struct {
		header []string
		want   int
	}{
		{nil, 200},
		{[]string{"Host: evil.example"}, 403},
		{[]string{"Host: evil.example:8001"}, 403},
		{[]string{"Host: 127.0.0.1.evil.example"}, 403},
		{[]string{"Host: localhost.evil.example"}, 403},
		{[]string{"Host: evil-localhost"}, 403},
		{[]string{"Host: 127.1"}, 403},
		{[]string{"Host: admin.example.com"}, 200},
		{[]string{"Host: admin.example.com.:8001"}, 200},
		{[]string{"Host: x.admin.example.com"}, 403},
		{[]string{"Host: localhost"}, 200},
		{[]string{"Host: LOCALHOST:1"}, 200},
		{[]string{"Host: 10.1.2.3:8001"}, 200},
		{[]string{"Host: [::1]"}, 200},
		{[]string{"Host: [::1]:8001"}, 200},

		{[]string{"Origin: http://" + own}, 200},
		{[]string{"Origin: https://" + own}, 200},
		{[]string{"Origin: null"}, 403},
		{[]string{"Origin: http://evil.example"}, 403},
		{[]string{"Origin: http://" + own + ".evil.example"}, 403},
		{[]string{"Origin: http://127.0.0.1:1"}, 403}, // another port is another origin
		{[]string{"Origin: http://127.0.0.1"}, 403},
		{[]string{"Origin: ftp://" + own}, 403},
		{[]string{"Origin: " + own}, 403},
		{[]string{"Host: evil.example", "Origin: http://evil.example"}, 403},
		{[]string{"Host: admin.example.com", "Origin: https://admin.example.com"}, 200},

		{[]string{"Sec-Fetch-Site: same-origin"}, 200},
		{[]string{"Sec-Fetch-Site: none"}, 200},
		{[]string{"Sec-Fetch-Site: same-site"}, 403},
		{[]string{"Sec-Fetch-Site: cross-site"}, 403},
		{[]string{"Sec-Fetch-Site: new-word"}, 403},
		{[]string{"Sec-Fetch-Site: same-origin", "Origin: http://evil.example"}, 403},
	} {
		for _, request := range []string{"GET /v1/status", "GET /api/routes", "POST /api/routes/x"} {
			method, target, _ := strings.Cut(request, " ")
			body, want := "", test.want
			if method == "POST" {
				body = `{"target":"http://127.0.0.1:9"}`
				want = map[int]int{200: 201, 403: 403}[want]
			}
			got := s.do(method, target, body, append([]string{"Authorization: "}, test.header...)...)
			if got.status != want {
				t.Errorf("%s %q: got %d %s; want %d", request, test.header, got.status, got.body, want)
			}
		}
		for _, target := range []string{"/livez", "/readyz"} {
			if got := s.do("GET", target, "", test.header...); got.status != 200 {
				t.Errorf("GET %s %q: got %d; want 200", target, test.header, got.status)
			}
		}
	}
	any := serve(t, &admin.Handler{Hosts: []string{"*"}})
	any.want(200, "GET", "/v1/status", "", "Host: proxy-api")
	if got := any.raw("GET /v1/status HTTP/1.0\r\nAuthorization: token " + token + "\r\n\r\n"); got.status != 200 {
		t.Errorf("HTTP/1.0 without a host: got %d; want 200", got.status)
	}
}

func TestEveryAnswerIsPrivate(t *testing.T) {
	s := serve(t, &admin.Handler{})
	for _, request := range []string{
		"GET /livez", "GET /readyz", "POST /readyz", "GET /v1/status", "GET /v1/routes", "POST /v1/routes", "GET /v1/nothing",
		"GET /nothing", "GET /api/routes", "GET /api/routes/x", "PATCH /api/routes", "DELETE /api/routes",
	} {
		method, target, _ := strings.Cut(request, " ")
		got := s.do(method, target, "")
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if got.header.Get(name) != want {
				t.Errorf("%s: got %s %q; want %q", request, name, got.header.Get(name), want)
			}
		}
		kind := got.header.Get("Content-Type")
		if got.body != "" && !strings.HasPrefix(kind, "application/json") && !strings.HasPrefix(kind, "text/plain") {
			t.Errorf("%s: got Content-Type %q", request, kind)
		}
	}
}

func TestMethods(t *testing.T) {
	s := serve(t, &admin.Handler{})
	put(t, s.router, "", slipswitch.Route{Path: "/a"})
	for target, allowed := range map[string]string{
		"/v1/routes":            "GET, HEAD",
		"/v1/route?path=/a":     "DELETE, GET, HEAD, PUT",
		"/v1/batch":             "POST",
		"/v1/tunnels":           "DELETE, GET, HEAD",
		"/v1/closes":            "GET, HEAD",
		"/v1/status":            "GET, HEAD",
		"/livez":                "GET, HEAD",
		"/readyz":               "GET, HEAD",
		"/api/routes":           "DELETE, GET, POST",
		"/api/routes/user/name": "DELETE, GET, POST",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
			got := s.do(method, target, "")
			if is, want := got.status != http.StatusMethodNotAllowed, strings.Contains(", "+allowed+",", " "+method+","); is != want {
				t.Errorf("%s %s: got %d; want it allowed: %v", method, target, got.status, want)
			}
			if got.status == http.StatusMethodNotAllowed && got.header.Get("Allow") != allowed {
				t.Errorf("%s %s: got Allow %q; want %q", method, target, got.header.Get("Allow"), allowed)
			}
		}
	}
}

// No target makes the handler panic or redirect.
func TestTargets(t *testing.T) {
	s := serve(t, &admin.Handler{})
	auth := "Authorization: token " + token
	for target, want := range map[string]int{
		"/":                          404,
		"//":                         404,
		"/v1":                        404,
		"/v1/":                       404,
		"/v1//routes":                404,
		"/v1/routes/":                404,
		"/v1/../v1/routes":           404,
		"/V1/routes":                 404,
		"*":                          404,
		"/v1/routes?%zz":             400,
		"/v1/routes?a;b":             400,
		"/v1/%zz":                    400,
		"/api/routes/%":              400,
		"/api/routes/%z":             400,
		"/api/routes/user/%E0%A4":    400,
		"/api/routes//x":             404,
		"/api/routes/x%2Fy":          404,
		"/api/routes/%00":            404,
		"/api/routes/..":             404,
		"/api/routes/\"%2F":          404,
		"/api/routesx":               404,
		"/api":                       404,
		"http://localhost/v1/status": 200,
	} {
		if got := s.raw(head("GET "+target, auth)); got.status != want {
			t.Errorf("GET %s: got %d %s; want %d", target, got.status, got.body, want)
		}
	}
}

// Tokens have names, and change while the API serves.
func TestTokens(t *testing.T) {
	var tokens atomic.Pointer[map[string]string]
	tokens.Store(&map[string]string{"ada": "a", "ci": "c", "nobody": ""})
	s := serve(t, &admin.Handler{Token: token, Tokens: func() map[string]string { return *tokens.Load() }})
	check := func(want map[string]int) {
		t.Helper()
		for token, status := range want {
			if got := s.do("GET", "/v1/status", "", "Authorization: Bearer "+token); got.status != status {
				t.Errorf("token %q: got %d; want %d", token, got.status, status)
			}
		}
	}
	check(map[string]int{token: 200, "a": 200, "c": 200, "ada": 401, "b": 401, "ac": 401})
	if got := s.do("GET", "/v1/status", "", "Authorization: Bearer "); got.status != 401 {
		t.Errorf("an empty token: got %d; want 401", got.status)
	}
	tokens.Store(&map[string]string{"ada": "b"})
	check(map[string]int{token: 200, "a": 401, "c": 401, "b": 200})

	only := serve(t, &admin.Handler{Open: true, Tokens: func() map[string]string { return nil }})
	if got := only.do("GET", "/v1/status", ""); got.status != 401 {
		t.Errorf("no tokens: got %d; want 401", got.status)
	}
}
