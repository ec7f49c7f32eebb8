package slipswitch_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// asked counts what each of some upstreams has received.
func asked(upstreams []*upstream) (counts []int) {
	for _, u := range upstreams {
		counts = append(counts, len(u.all()))
	}
	return counts
}

func several(t *testing.T, n int, reply string) (list []*upstream) {
	for range n {
		list = append(list, answering(t, reply))
	}
	return list
}

// TestWeights: what is led where is in proportion.
func TestWeights(t *testing.T) {
	list := several(t, 3, ok(""))
	r := route("/a", list...)
	r.Upstreams[0].Weight, r.Upstreams[1].Weight = 6, 3
	g := startGateway(t, &slipswitch.Proxy{}, r)
	client := g.dial()
	const n = 1000
	for range n {
		client.send(request("GET", "/a"))
		client.answer("GET")
	}
	for i, share := range []float64{0.6, 0.3, 0.1} {
		// Of two drawn by weight the idle one with the greater weight is taken as
		// little loaded; what is asked here is only the order, and that none starves.
		if got := float64(asked(list)[i]) / n; got < share/3 || got > min(share*1.7, 0.95) {
			t.Errorf("upstream %d was asked %.2f of all; want about %.1f", i, got, share)
		}
	}
}

// TestLeastLoaded: what is busy is asked less, and tunnels count.
func TestLeastLoaded(t *testing.T) {
	list := []*upstream{tunneling(t), tunneling(t)}
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", list...))
	for range 20 {
		client := g.dial()
		client.send(handshake("/a"))
		client.answer("GET")
	}
	if got := asked(list); !slices.Equal(got, []int{10, 10}) {
		t.Errorf("tunnels: %v; want 10 each", got)
	}
	for range 10 { // all of one upstream end; what comes next goes there
		list[0].tunnel().reset()
	}
	g.tunnels(10)
	for range 10 {
		client := g.dial()
		client.send(handshake("/a"))
		client.answer("GET")
	}
	if got := asked(list); !slices.Equal(got, []int{20, 10}) {
		t.Errorf("after ten have ended: %v; want 20 and 10", got)
	}
}

// TestLeastLoadedByWeight: of what is open each has its share.
func TestLeastLoadedByWeight(t *testing.T) {
	list := []*upstream{tunneling(t), tunneling(t)}
	r := route("/a", list...)
	r.Upstreams[0].Weight = 3
	g := startGateway(t, &slipswitch.Proxy{}, r)
	for range 40 {
		client := g.dial()
		client.send(handshake("/a"))
		client.answer("GET")
	}
	if got := asked(list); !slices.Equal(got, []int{30, 10}) {
		t.Errorf("tunnels: %v; want 30 and 10", got)
	}
}

// TestEjection: what cannot be reached is passed over for a while, and tried
// again after it; the bodies are whole.
func TestEjection(t *testing.T) {
	var dead atomic.Int64
	down := refusing(t)
	u := startUpstream(t, func(r received) string {
		if r.err != nil {
			t.Errorf("the upstream got %d bytes: %v", len(r.body), r.err)
		}
		return ok(r.body, "Connection: close")
	})
	p := &slipswitch.Proxy{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if "http://"+address == down {
			dead.Add(1)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	r := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(down, u.url)}
	g := startGateway(t, p, r)
	body := strings.Repeat("x", 10_000)
	post := func() {
		t.Helper()
		if a := g.do(request("POST", "/a", fmt.Sprintf("Content-Length: %d", len(body))) + body); a.StatusCode != 200 || a.body != body {
			t.Fatalf("got %s, %d bytes, %v", a.Status, len(a.body), a.err)
		}
	}
	until(t, "the dead upstream is tried", func() bool { post(); return dead.Load() == 1 })
	for range 30 {
		post()
	}
	if n := dead.Load(); n > 2 { // 2 if the second was over meanwhile
		t.Errorf("it was tried %d times within its ejection", n)
	}
	seen := dead.Load()
	until(t, "it is tried again", func() bool { post(); return dead.Load() > seen })

	// Where all are ejected they are tried all the same.
	g.put(slipswitch.Route{Path: "/b", Upstreams: slipswitch.To(down, down+"/x")})
	for range 3 {
		before := dead.Load()
		if a := g.get("/b"); a.StatusCode != 502 || dead.Load() != before+2 {
			t.Errorf("got %s after %d tries; want 502 after 2", a.Status, dead.Load()-before)
		}
	}
}

// TestUpstreamsChange while requests are in flight: none of them fails.
func TestUpstreamsChange(t *testing.T) {
	list := several(t, 4, ok("hello"))
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", list...))
	var clients sync.WaitGroup
	stop := make(chan struct{})
	clients.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				g.put(route("/a", slices.Concat(list[i%4:], list[:i%4])[:1+i%4]...))
			}
		}
	})
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			client := g.dial()
			for range 100 {
				client.send(request("GET", "/a"))
				if a := client.answer("GET"); a.StatusCode != 200 || a.body != "hello" {
					t.Errorf("got %s %q", a.Status, a.body)
				}
			}
		})
	}
	running.Wait()
	close(stop)
	clients.Wait()
}

// TestUpstreamsChangeInFlight: a request that has begun ends where it began, and
// with its whole body; what comes next goes elsewhere.
func TestUpstreamsChangeInFlight(t *testing.T) {
	whole := func(name string) func(received) string {
		return func(r received) string { return ok(name + " got " + r.body) }
	}
	old, other := startUpstream(t, whole("old")), startUpstream(t, whole("other"))
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", old))
	client := g.dial()
	client.send(request("POST", "/a", "Content-Length: 10") + "first")
	until(t, "it has begun", func() bool { return old.connections() == 1 })
	r := route("/a", other)
	r.OnUpstreamRemoved.Close = true // which is about tunnels
	g.put(r)
	if a := g.get("/a"); a.body != "other got " {
		t.Errorf("the next: got %q", a.body)
	}
	client.send("rest!" + request("GET", "/a"))
	for _, want := range []string{"old got firstrest!", "other got "} {
		if a := client.answer("GET"); a.body != want {
			t.Errorf("got %s %q; want %q", a.Status, a.body, want)
		}
	}
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

// pickOf returns a route with n upstreams, of weights 1, 2, 3, 1, 2, 3, …
func pickOf(t testing.TB, n int) (*slipswitch.Proxy, slipswitch.Entry) {
	t.Helper()
	p := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	r := slipswitch.Route{Path: "/"}
	for i := range n {
		r.Upstreams = append(r.Upstreams, slipswitch.Upstream{URL: fmt.Sprintf("http://10.0.%d.%d:8080", i/200, i%200+1), Weight: 1 + i%3})
	}
	if _, err := p.Router.Update(func(tx *slipswitch.Txn) error { tx.Put(r); return nil }); err != nil {
		t.Fatal(err)
	}
	e, _ := p.Router.Table().At(r.Key())
	return p, e
}

// Of many each is picked by its weight, and the last one is found, too, when all
// others have been tried.
func TestPickOfMany(t *testing.T) {
	const each = 2000
	p, e := pickOf(t, 60)
	var got [4]int
	for range 60 * each {
		got[1+p.Pick(e, 0)%3]++
	}
	for weight, want := range []float64{0, 20. / 120, 40. / 120, 60. / 120} {
		if share := float64(got[weight]) / (60 * each); math.Abs(share-want) > 0.02 {
			t.Errorf("those of weight %d got %.3f of all; want %.3f", weight, share, want)
		}
	}
	p, e = pickOf(t, 1000)
	for range 20 {
		if i := p.Pick(e, 999); i != 999 {
			t.Fatalf("got %d; want the only one that is left", i)
		}
	}
	if i := p.Pick(e, 1000); i != -1 {
		t.Errorf("got %d; want none", i)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, e := pickOf(b, n)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p.Pick(e, 0)
				}
			})
		})
	}
}
