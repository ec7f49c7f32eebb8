package slipswitch_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Several upstreams, the first of which gets three times as much; a client
// stays where it was led to first.
func ExampleSticky() {
	serve := func(name string) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, name, " sees cookies: ", len(r.Cookies()))
		}))
	}
	large, small := serve("large"), serve("small")
	defer large.Close()
	defer small.Close()
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	defer proxy.Shutdown(context.Background())
	proxy.Router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{
		Path:      "/app",
		Upstreams: []slipswitch.Upstream{{URL: large.URL, Weight: 3}, {URL: small.URL}},
		Sticky:    slipswitch.Sticky{Cookie: "upstream"},
	}})
	first := httptest.NewRecorder()
	proxy.ServeHTTP(first, httptest.NewRequest("GET", "/app", nil))
	cookie := first.Result().Cookies()[0]
	fmt.Println(cookie.Name, cookie.Path, len(cookie.Value))
	for range 10 {
		again := httptest.NewRecorder()
		request := httptest.NewRequest("GET", "/app", nil)
		request.AddCookie(cookie)
		proxy.ServeHTTP(again, request)
		if again.Body.String() != first.Body.String() || len(again.Result().Cookies()) > 0 {
			fmt.Println(again.Body)
		}
	}
	// Output:
	// upstream /app 22
}

// TestSticky: a cookie leads back, for plain requests and for handshakes; one
// that was made up, or whose upstream is gone, is no cookie.
func TestSticky(t *testing.T) {
	list := several(t, 4, ok(""))
	names := map[string]int{}
	r := route("/app;x", list...)
	r.Sticky = slipswitch.Sticky{Cookie: "lb"}
	key := []byte("a key that gateways share")
	g := startGateway(t, &slipswitch.Proxy{StickyKey: key}, r)
	other := startGateway(t, &slipswitch.Proxy{StickyKey: key}, r)
	stranger := startGateway(t, &slipswitch.Proxy{StickyKey: []byte{}}, r) // no key is none to forge by
	keyless := hmac.New(sha256.New, nil)
	fmt.Fprintf(keyless, "%q %q", host+"\x00/app;x/", list[0].url)
	forgery := "lb=" + base64.RawURLEncoding.EncodeToString(keyless.Sum(nil)[:16])
	take := func() (which []int) {
		for i, u := range list {
			for _, r := range u.all() {
				which = append(which, i)
				if strings.Contains(r.head, "lb=") {
					t.Errorf("the upstream sees %q", r.Header["Cookie"])
				}
			}
			u.mu.Lock()
			u.received = nil
			u.mu.Unlock()
		}
		return which
	}
	until(t, "all have been picked", func() bool {
		a := g.get("/app;x")
		set := a.Header["Set-Cookie"]
		if len(set) != 1 || !strings.HasSuffix(set[0], "; Path=/app%3Bx; HttpOnly; SameSite=Lax") {
			t.Fatalf("got Set-Cookie: %q", set)
		}
		value, _, _ := strings.Cut(set[0], ";")
		names[value] = take()[0]
		return len(names) == len(list)
	})
	values := slices.Sorted(maps.Keys(names))
	for _, value := range values {
		for _, g := range []*gateway{g, other} {
			for _, raw := range []string{request("GET", "/app;x", "Cookie: a=b; "+value+"; c=\"d\""), handshake("/app;x/y", "Cookie: "+value)} {
				a := g.do(raw)
				if got := take(); !slices.Equal(got, []int{names[value]}) || a.Header["Set-Cookie"] != nil {
					t.Errorf("%q: led to %v, Set-Cookie %q; want %d", value, got, a.Header["Set-Cookie"], names[value])
				}
			}
		}
		if a := stranger.get("/app;x", "Cookie: "+value); a.Header["Set-Cookie"] == nil {
			t.Error("another's cookie was taken for its own")
		}
		take()
	}
	if a := stranger.get("/app;x", "Cookie: "+forgery); a.Header["Set-Cookie"] == nil {
		t.Error("a cookie was made without a key")
	}
	for _, forged := range []string{"lb=", "lb=AAAAAAAAAAAAAAAAAAAAAA", values[0] + "A", strings.TrimPrefix(list[0].url, "http://"), "lb=" + list[0].url} {
		a := g.get("/app;x", "Cookie: "+forged)
		if a.StatusCode != 200 || len(a.Header["Set-Cookie"]) != 1 {
			t.Errorf("%q: got %s, Set-Cookie %q; want a new one", forged, a.Status, a.Header["Set-Cookie"])
		}
	}
	take()
	// Gone, and unreachable.
	for i, value := range values {
		gone := route("/app;x", slices.Delete(slices.Clone(list), names[value], names[value]+1)...)
		gone.Sticky = r.Sticky
		if i%2 == 1 {
			gone = r
			gone.Upstreams = slices.Clone(r.Upstreams)
			gone.Upstreams[names[value]] = slipswitch.Upstream{URL: refusing(t)}
		}
		g.put(gone)
		a := g.get("/app;x", "Cookie: "+value)
		if got := take(); len(got) != 1 || got[0] == names[value] || len(a.Header["Set-Cookie"]) != 1 {
			t.Errorf("%q, gone: led to %v, Set-Cookie %q", value, got, a.Header["Set-Cookie"])
		}
	}
}

// TestManyStickyCookies: the work for a header is not the product of its cookies
// and the route's upstreams.
func TestManyStickyCookies(t *testing.T) {
	u := answering(t, ok(""))
	r := route("/a", u)
	r.Sticky = slipswitch.Sticky{Cookie: "lb"}
	for i := range 4000 {
		r.Upstreams = append(r.Upstreams, slipswitch.Upstream{URL: u.url + fmt.Sprint("/", i)})
	}
	g := startGateway(t, &slipswitch.Proxy{}, r)
	forged := strings.Repeat("lb="+strings.Repeat("A", 22)+";", 39_000)
	began := time.Now()
	if a := g.get("/a", "Cookie: "+forged+"a=b"); a.StatusCode != 200 {
		t.Errorf("got %s", a.Status)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if got := u.only().Header["Cookie"]; !slices.Equal(got, []string{"a=b"}) {
		t.Errorf("got %d bytes of cookies; want a=b", len(fmt.Sprint(got)))
	}
}

// TestStickyToPaths: two upstreams of one address are two.
func TestStickyToPaths(t *testing.T) {
	u := startUpstream(t, func(r received) string { return ok(r.target()) })
	g := startGateway(t, &slipswitch.Proxy{}, slipswitch.Route{Path: "/app",
		Upstreams: slipswitch.To(u.url+"/one", u.url+"/two"), Sticky: slipswitch.Sticky{Cookie: "lb"}})
	seen := make(map[string]bool)
	until(t, "both are picked", func() bool {
		first := g.get("/app")
		cookie, _, _ := strings.Cut(first.Header.Get("Set-Cookie"), ";")
		if again := g.get("/app", "Cookie: "+cookie); again.body != first.body || again.Header["Set-Cookie"] != nil {
			t.Fatalf("led to %s first, and then to %s", first.body, again.body)
		}
		seen[first.body] = true
		return len(seen) == 2
	})
}

// TestStickyIsTheGateways: an upstream sets no cookie of that name.
func TestStickyIsTheGateways(t *testing.T) {
	list := several(t, 2, ok("", "Set-Cookie: lb=evil; Path=/", "Set-Cookie: a=b"))
	r := route("/app", list...)
	r.Sticky = slipswitch.Sticky{Cookie: "lb"}
	g := startGateway(t, &slipswitch.Proxy{}, r)
	if got := g.get("/app").Header["Set-Cookie"]; len(got) != 2 || got[0] != "a=b" || strings.Contains(got[1], "evil") {
		t.Errorf("got Set-Cookie: %q", got)
	}
}

// TestStickyAttributes as the route says, and only where there is a choice.
func TestStickyAttributes(t *testing.T) {
	list := several(t, 2, ok(""))
	r := route("/app", list...)
	r.Sticky = slipswitch.Sticky{Cookie: "lb", Path: "/", SameSite: "none"}
	g := startGateway(t, &slipswitch.Proxy{TrustedProxies: loopback}, r)
	if got := g.get("/app").Header.Get("Set-Cookie"); !strings.HasSuffix(got, "; Path=/; HttpOnly; Secure; SameSite=None") {
		t.Errorf("got %q", got)
	}
	r.Sticky = slipswitch.Sticky{Cookie: "lb", SameSite: "strict"}
	g.put(r)
	if got := g.get("/app", "X-Forwarded-Proto: https").Header.Get("Set-Cookie"); !strings.HasSuffix(got, "; Path=/app; HttpOnly; Secure; SameSite=Strict") {
		t.Errorf("got %q", got)
	}
	r.Headers = slipswitch.Headers{HideHeaders: []string{"X-Forwarded-Proto"}} // from the upstream, that is
	g.put(r)
	for _, raw := range []string{request("GET", "/app", "X-Forwarded-Proto: https"), handshake("/app", "X-Forwarded-Proto: https")} {
		if got := g.do(raw).Header.Get("Set-Cookie"); !strings.Contains(got, "; Secure;") {
			t.Errorf("got %q; want Secure", got)
		}
	}
	r.Upstreams = r.Upstreams[:1]
	g.put(r)
	if got := g.get("/app").Header["Set-Cookie"]; got != nil {
		t.Errorf("got %q; want none: there is no choice", got)
	}
	for _, bad := range []slipswitch.Sticky{{Path: "/"}, {SameSite: "lax"}, {Cookie: "a b"}, {Cookie: "a", Path: "b"}, {Cookie: "a", Path: "/;"}, {Cookie: "a", SameSite: "Lax"}} {
		r.Sticky = bad
		if _, err := g.Router.Apply(nil, slipswitch.Change{Put: &r}); err == nil || !strings.Contains(err.Error(), "sticky.") {
			t.Errorf("%+v: got error %v", bad, err)
		}
	}
}
