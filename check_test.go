package slipswitch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Of two upstreams one says that it is not well, and gets no requests.
func ExampleCheck() {
	var ill atomic.Bool
	serve := func(name string, ill *atomic.Bool) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" && ill.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprint(w, name)
		}))
	}
	one, two := serve("one", &ill), serve("two", new(atomic.Bool))
	defer one.Close()
	defer two.Close()
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	defer proxy.Shutdown(context.Background())
	route := slipswitch.Route{
		Path: "/app", Upstreams: slipswitch.To(one.URL, two.URL),
		Check: slipswitch.Check{Path: "/healthz", Every: time.Second},
	}
	proxy.Router.Apply(nil, slipswitch.Change{Put: &route})
	get := func() string {
		recorder := httptest.NewRecorder()
		proxy.ServeHTTP(recorder, httptest.NewRequest("GET", "/app", nil))
		return recorder.Body.String()
	}
	ill.Store(true)
	get() // with the first request the checks begin
	entry, _ := proxy.Router.Table().At(route.Key())
	for proxy.Ejections(entry) == nil {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println(proxy.Ejections(entry)[0].Error)
	for range 3 {
		fmt.Println(get())
	}
	// Output:
	// status 503
	// two
	// two
	// two
}

// A village is a network of HTTP servers in memory, by address, for tests whose
// time is not the clock's.
type village struct {
	t       *testing.T
	dials   atomic.Value // func(host string) error, called before each dial
	mu      sync.Mutex
	answers map[string]http.HandlerFunc // by host
	seen    map[string]int              // requests, by host and path
	servers sync.WaitGroup
}

func newVillage(t *testing.T) *village {
	return &village{t: t, answers: make(map[string]http.HandlerFunc), seen: make(map[string]int)}
}

// says lets a host answer with a status from now on; 0: not at all.
func (v *village) says(host string, status int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answers[host] = func(w http.ResponseWriter, r *http.Request) {
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
	}
}

// count returns how often a host was asked for a path.
func (v *village) count(at string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen[at]
}

// total counts all requests.
func (v *village) total() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, seen := range v.seen {
		n += seen
	}
	return n
}

func (v *village) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	if dials, ok := v.dials.Load().(func(string) error); ok {
		if err := dials(host); err != nil {
			return nil, err
		}
	}
	here, there := net.Pipe()
	listener := &single{conn: there, closed: make(chan struct{})}
	server := &http.Server{
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				listener.Close()
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v.mu.Lock()
			v.seen[host+r.URL.Path]++
			answer := v.answers[host]
			v.mu.Unlock()
			if r.URL.Path == "/healthz" {
				answer(w, r)
			}
		}),
	}
	v.servers.Go(func() { server.Serve(listener) })
	return here, nil
}

// A single is a listener with one connection.
type single struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *single) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn = nil
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *single) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *single) Addr() net.Addr { return &net.UnixAddr{} }

// checked runs a test in a bubble with a Proxy in a village.
func checked(t *testing.T, test func(t *testing.T, v *village, p *slipswitch.Proxy)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v := newVillage(t)
		p := &slipswitch.Proxy{Router: new(slipswitch.Router), DialContext: v.DialContext}
		test(t, v, p)
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait() // for dials that a request has left behind
		v.servers.Wait()
	})
}

// ask sends n requests and returns which hosts have been asked, by name.
func (v *village) ask(p *slipswitch.Proxy, path string, n int) (hosts string) {
	v.t.Helper()
	v.mu.Lock()
	for at := range v.seen {
		if strings.HasSuffix(at, path) {
			v.seen[at] = 0
		}
	}
	v.mu.Unlock()
	for range n {
		recorder := httptest.NewRecorder()
		p.ServeHTTP(recorder, httptest.NewRequest("GET", path, nil))
		if recorder.Code != 200 {
			v.t.Errorf("%s: got %d", path, recorder.Code)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var asked []string
	for at, n := range v.seen {
		if host, ok := strings.CutSuffix(at, path); ok && n > 0 {
			asked = append(asked, host)
		}
	}
	slices.Sort(asked)
	return strings.Join(asked, " ")
}

func (v *village) put(p *slipswitch.Proxy, r slipswitch.Route) slipswitch.Key {
	v.t.Helper()
	if _, err := p.Router.Apply(nil, slipswitch.Change{Put: &r}); err != nil {
		v.t.Fatal(err)
	}
	return r.Key()
}

func ejected(p *slipswitch.Proxy, k slipswitch.Key) (list []string) {
	entry, _ := p.Router.Table().At(k)
	for _, e := range p.Ejections(entry) {
		list = append(list, strings.TrimPrefix(e.Upstream, "http://")+" "+e.Error)
	}
	return list
}

// TestCheck: what fails twice in a row is passed over until it passes; where all
// fail, all are tried.
func TestCheck(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		v.says("one", 200)
		v.says("two", 204)
		key := v.put(p, slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://one", "http://two"),
			Check: slipswitch.Check{Path: "/healthz", Every: 10 * time.Second, Timeout: 2 * time.Second}})
		if got := v.ask(p, "/a", 50); got != "one two" {
			t.Errorf("at first %q are asked", got)
		}
		for _, step := range []struct {
			one, two int
			rounds   int
			want     string // who is asked
			ejected  []string
		}{
			{200, 399, 3, "one two", nil},
			{500, 200, 1, "one two", nil}, // it may be a slip
			{500, 200, 1, "two", []string{"one:80 status 500"}},
			{400, 200, 5, "two", []string{"one:80 status 400"}},
			{200, 200, 1, "one two", nil},
			{500, 200, 1, "one two", nil},
			{200, 200, 1, "one two", nil},
			{500, 200, 1, "one two", nil}, // the one before was another row
			{200, 0, 2, "one", []string{"two:80 context deadline exceeded"}},
			{404, 0, 2, "one two", []string{"one:80 status 404", "two:80 context deadline exceeded"}},
			{404, 301, 1, "two", []string{"one:80 status 404"}},
			{200, 200, 1, "one two", nil},
		} {
			v.says("one", step.one)
			v.says("two", step.two)
			for one := v.count("one/healthz") + step.rounds; v.count("one/healthz") < one; {
				time.Sleep(100 * time.Millisecond) // the bubble's
			}
			time.Sleep(3 * time.Second) // so long does one take that gets no answer
			synctest.Wait()
			if got := ejected(p, key); !slices.Equal(got, step.ejected) {
				t.Errorf("%+v: ejected are %q", step, got)
			}
			if got := v.ask(p, "/a", 50); got != step.want {
				t.Errorf("%+v: %q are asked", step, got)
			}
		}
	})
}

// TestCheckBegins with a route's first request, and only where there is a choice
// to be made by it.
func TestCheckBegins(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		check := slipswitch.Check{Path: "/healthz", Every: time.Second}
		for _, host := range []string{"one", "two", "idle", "none", "none2"} {
			v.says(host, 200)
		}
		v.put(p, slipswitch.Route{Path: "/single", Upstreams: slipswitch.To("http://one"), Check: check})
		v.put(p, slipswitch.Route{Path: "/none", Upstreams: slipswitch.To("http://none", "http://none2")})
		v.put(p, slipswitch.Route{Path: "/idle", Upstreams: slipswitch.To("http://idle", "http://idle"), Check: check})
		v.ask(p, "/single", 2)
		v.ask(p, "/none", 10)
		time.Sleep(time.Minute)
		if len(v.seen) != 3 {
			t.Errorf("asked: %v; want only the requests", v.seen)
		}
		key := v.put(p, slipswitch.Route{Path: "/several", Upstreams: slipswitch.To("http://one", "http://two/base"), Check: check})
		v.ask(p, "/several", 1)
		before, _ := p.Router.Table().At(key)
		active := before.LastActive()
		time.Sleep(time.Minute)
		if one, two := v.count("one/healthz"), v.count("two/base/healthz"); one < 55 || one > 65 || two < 55 || two > 65 {
			t.Errorf("in a minute: %d and %d checks, every second", one, two)
		}
		if entry, _ := p.Router.Table().At(key); !entry.LastActive().Equal(active) {
			t.Error("a check is activity")
		}
	})
}

// TestCheckEnds with the route, with its Check, and with Shutdown.
func TestCheckEnds(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		r := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://one", "http://two"),
			Check: slipswitch.Check{Path: "/healthz", Every: time.Second}}
		for _, host := range []string{"one", "two", "three"} {
			v.says(host, 500)
		}
		rests := func(after string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			before := v.total()
			time.Sleep(time.Minute)
			if routes, questions := p.Checked(); v.total() != before || routes+questions != 0 {
				t.Errorf("%s there are %d checks, %d routes, %d questions", after, v.total()-before, routes, questions)
			}
		}
		begin := func() {
			t.Helper()
			v.put(p, r)
			v.ask(p, "/a", 1)
			time.Sleep(5 * time.Second)
			if got := ejected(p, r.Key()); len(got) != 2 {
				t.Errorf("ejected are %q; want both", got)
			}
		}
		begin()
		p.Router.Apply(nil, slipswitch.Change{Delete: new(r.Key())})
		rests("when the route is deleted")
		begin()
		unchecked := r
		unchecked.Check = slipswitch.Check{}
		v.put(p, unchecked)
		if got := ejected(p, r.Key()); got != nil {
			t.Errorf("without a check, ejected are %q", got)
		}
		rests("when the route asks for none")
		begin()
		alone := r
		alone.Upstreams = r.Upstreams[:1]
		v.put(p, alone)
		rests("when there is no choice any more")
		begin()
		// It follows the route without another request.
		moved := r
		moved.Upstreams = slipswitch.To("http://two", "http://three")
		v.put(p, moved)
		time.Sleep(5 * time.Second)
		if got := ejected(p, r.Key()); len(got) != 2 || v.count("three/healthz") == 0 {
			t.Errorf("ejected are %q; want two and three", got)
		}
		one := v.count("one/healthz")
		time.Sleep(5 * time.Second)
		if n := v.count("one/healthz"); n != one {
			t.Errorf("what the route has left is checked %d times", n-one)
		}
		begin()
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		rests("after Shutdown")
	})
}

// TestChecksAreShared by routes that would ask the same; others know their own.
func TestChecksAreShared(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		v.says("one", 500)
		v.says("two", 200)
		var keys []slipswitch.Key
		for i := range 20 {
			r := slipswitch.Route{Path: fmt.Sprint("/", i), Upstreams: slipswitch.To("http://one", "http://two"),
				Check: slipswitch.Check{Path: "/healthz", Every: 10 * time.Second}}
			switch i {
			case 18:
				r.Check.Path = "/other"
			case 19:
				r.UpstreamHost = "ide.internal"
			}
			keys = append(keys, v.put(p, r))
			v.ask(p, r.Path, 1)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(100 * time.Second)
		if n := v.count("one/healthz"); n < 20 || n > 26 { // two of them each 10 s
			t.Errorf("%d checks in 100 s; want about 20", n)
		}
		for i, key := range keys {
			if got := len(ejected(p, key)); got != 1 && i != 18 || got != 0 && i == 18 {
				t.Errorf("route %d: %d are ejected", i, got)
			}
		}
	})
}

// TestChecksAreBounded: many that hang hold no more than 64 connections; the
// gateway's own limits are nobody's failure.
func TestChecksAreBounded(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		var checking, most atomic.Int64
		for i := range 80 {
			host := fmt.Sprint("h", i)
			v.answers[host] = func(w http.ResponseWriter, r *http.Request) {
				if n := checking.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-r.Context().Done()
				checking.Add(-1)
			}
		}
		var keys []slipswitch.Key
		for i := range 40 {
			path := fmt.Sprint("/", i)
			keys = append(keys, v.put(p, slipswitch.Route{Path: path, Check: slipswitch.Check{Path: "/healthz", Timeout: time.Second},
				Upstreams: slipswitch.To(fmt.Sprint("http://h", 2*i), fmt.Sprint("http://h", 2*i+1))}))
			v.ask(p, path, 1)
		}
		time.Sleep(30 * time.Second)
		if n := most.Load(); n != 64 {
			t.Errorf("up to %d checks at a time; want 64", n)
		}
		for _, key := range keys {
			if got := ejected(p, key); len(got) != 2 {
				t.Errorf("%s: ejected are %q; want both", key, got)
			}
		}
	})
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		alone := func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") }
		v.answers["one"], v.answers["two"] = alone, alone
		key := v.put(p, slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://one", "http://two"),
			Check: slipswitch.Check{Path: "/healthz", Every: time.Second}})
		v.ask(p, "/a", 1)
		v.dials.Store(func(string) error { return &slipswitch.Error{Status: 503, Reason: "too many connections"} })
		time.Sleep(time.Minute)
		if got := ejected(p, key); got != nil {
			t.Errorf("ejected are %q", got)
		}
	})
}

// TestCheckFindsTheWayBack: what could not be reached and was passed over for
// long is asked again as soon as a check has reached it.
func TestCheckFindsTheWayBack(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		v.says("one", 200)
		v.says("two", 200)
		down := errors.New("connection refused")
		v.dials.Store(func(host string) error {
			if host == "one" {
				return down
			}
			return nil
		})
		key := v.put(p, slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://one", "http://two"),
			Check: slipswitch.Check{Path: "/healthz", Every: time.Minute}})
		for range 10 { // the next try would be at 75 s
			v.ask(p, "/a", 20)
			time.Sleep(5 * time.Second)
		}
		if got := ejected(p, key); !slices.Equal(got, []string{"one:80 connection refused"}) {
			t.Errorf("ejected are %q", got)
		}
		v.dials.Store(func(string) error { return nil })
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if got := ejected(p, key); got != nil {
			t.Errorf("ejected are %q; want none", got)
		}
		if got := v.ask(p, "/a", 50); got != "one two" {
			t.Errorf("%q are asked", got)
		}
	})
}

// TestCheckTurnsAtOnce to the upstreams that a route has got meanwhile, however
// seldom it checks.
func TestCheckTurnsAtOnce(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		for _, hosts := range [][2]string{{"one", "two"}, {"three", "four"}} {
			v.says(hosts[0], 200)
			v.says(hosts[1], 200)
			v.put(p, slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://"+hosts[0], "http://"+hosts[1]),
				Check: slipswitch.Check{Path: "/healthz", Every: 24 * time.Hour}})
			v.ask(p, "/a", 1)
			time.Sleep(time.Millisecond) // a connection that is no socket is looked at for a moment
			synctest.Wait()
			if v.count(hosts[0]+"/healthz") != 1 || v.count(hosts[1]+"/healthz") != 1 {
				t.Errorf("%s are not checked with the first request", hosts)
			}
		}
	})
}

// TestCheckSpeaks each upstream's own protocol, over real sockets.
func TestCheckSpeaks(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ide.sock")
	socket, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]string{}
	note := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/well" {
			asked[fmt.Sprint(r.Proto, " ", r.TLS != nil)] = r.Method + " " + r.Host + " " + r.RequestURI + " " + r.UserAgent()
		}
	}
	serve(t, socket, note, func(p *http.Protocols) { p.SetHTTP1(true) })
	serve(t, plain, note, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	secure := httptest.NewTLSServer(http.HandlerFunc(note))
	defer secure.Close()
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	r := slipswitch.Route{Path: "/a", TLSProfile: "test", UpstreamHost: "ide.internal", Check: slipswitch.Check{Path: "/well?full=1"},
		Upstreams: slipswitch.To("unix:"+name, "h2c://"+plain.Addr().String(), secure.URL)}
	g := startGateway(t, &slipswitch.Proxy{TLSProfiles: map[string]*tls.Config{"test": {RootCAs: pool}}}, r)
	g.get("/a")
	want := "GET ide.internal /well?full=1 slipswitch"
	until(t, "all are checked", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return asked["HTTP/1.1 false"] == want && asked["HTTP/2.0 false"] == want && asked["HTTP/1.1 true"] == want
	})
}
