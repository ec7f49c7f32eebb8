package slipswitch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A workspace that sleeps until somebody asks for it.
func ExampleResolver() {
	workspace := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "good morning")
	}))
	defer workspace.Close()
	var asked atomic.Int64
	proxy := &slipswitch.Proxy{
		Router: new(slipswitch.Router),
		Resolver: &slipswitch.Resolver{Resolve: func(ctx context.Context, m slipswitch.Match) (slipswitch.Upstream, error) {
			if workspace, _ := m.Label("workspace"); workspace != "7" {
				return slipswitch.Upstream{}, slipswitch.ErrNotFound
			}
			if asked.Add(1) == 1 {
				// Begin to wake it here. Or wait until it is awake: all who come
				// meanwhile share this call.
				return slipswitch.Upstream{}, slipswitch.ErrAsleep
			}
			return slipswitch.Upstream{URL: workspace.URL}, nil
		}},
	}
	proxy.Router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{
		Path: "/ide-7", Resolve: true, Labels: map[string]string{"workspace": "7"},
	}})
	server := httptest.NewServer(proxy)
	defer server.Close()
	for range 2 {
		response, err := http.Get(server.URL + "/ide-7")
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		fmt.Println(response.StatusCode, response.Header.Get("Retry-After"), string(body))
	}
	// Output:
	// 503 2 503 Service Unavailable: it has been asleep
	//
	// 200  good morning
}

type resolve = func(ctx context.Context, m slipswitch.Match) (slipswitch.Upstream, error)

// resolving is a route whose template captures a name, and says which network
// its names may lead to.
func resolving(t *testing.T, r resolve) (*gateway, *slipswitch.Resolver) {
	t.Helper()
	resolver := &slipswitch.Resolver{Resolve: r}
	g := startGateway(t, &slipswitch.Proxy{Resolver: resolver},
		slipswitch.Route{Path: "/ws", Resolve: true, Upstreams: slipswitch.To("http://{1}.ide.example.")})
	return g, resolver
}

// TestResolverIsAskedOnce for all who wait for the same, and no tenant gets the
// answer of another.
func TestResolverIsAskedOnce(t *testing.T) {
	const each = 250
	upstreams := map[string]*upstream{"ada": answering(t, ok("for ada")), "grace": answering(t, ok("for grace"))}
	release := make(chan struct{})
	var calls atomic.Int64
	g, resolver := resolving(t, func(ctx context.Context, m slipswitch.Match) (slipswitch.Upstream, error) {
		calls.Add(1)
		if m.Path != "/ws/"+m.Capture("1") {
			t.Errorf("Resolve sees %s, which is one client's", m.Path)
		}
		<-release
		return slipswitch.Upstream{URL: upstreams[m.Capture("1")].url}, nil
	})
	var clients sync.WaitGroup
	for i := range 2 * each {
		name := []string{"ada", "grace"}[i%2]
		client := g.dial()
		client.send(request("GET", fmt.Sprintf("/ws/%s/%d?secret=%d", name, i, i), "Connection: close"))
		clients.Go(func() {
			client.SetReadDeadline(time.Now().Add(wait))
			if got, _ := io.ReadAll(client); !strings.HasSuffix(string(got), "for "+name) {
				t.Errorf("%s got %q", name, got)
			}
		})
	}
	until(t, "all wait", func() bool { return resolver.Waiting() == 2*each })
	close(release)
	clients.Wait()
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls; want 2", n)
	}
	for name, u := range upstreams {
		for _, r := range u.all() {
			if !strings.HasPrefix(r.target(), "/ws/"+name+"/") {
				t.Errorf("%s was asked for %s", name, r.target())
			}
		}
	}
	if n := resolver.Waiting(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// TestResolverThatHangs: nobody waits for it longer than its time, and who comes
// later gets an answer.
func TestResolverThatHangs(t *testing.T) {
	t.Parallel()
	u := answering(t, ok("hello"))
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	var calls atomic.Int64
	g, resolver := resolving(t, func(context.Context, slipswitch.Match) (slipswitch.Upstream, error) {
		switch calls.Add(1) {
		case 1:
			<-release
		case 2:
			runtime.Goexit()
		}
		return slipswitch.Upstream{URL: u.url}, nil
	})
	resolver.Timeout = 10 * time.Millisecond
	for _, want := range []int{504, 502, 200} {
		if a := g.get("/ws/a/"); a.StatusCode != want {
			t.Errorf("got %s; want %d", a.Status, want)
		}
	}
	if n := resolver.Waiting(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// TestResolverOutlivesShutdown: calls end when no request is in progress any more,
// and not as soon as the tunnels are gone.
func TestResolverOutlivesShutdown(t *testing.T) {
	u := answering(t, ok("hello"))
	release, called, ended := make(chan struct{}), make(chan struct{}, 2), make(chan struct{})
	g, resolver := resolving(t, func(ctx context.Context, m slipswitch.Match) (slipswitch.Upstream, error) {
		called <- struct{}{}
		if m.Capture("1") == "left" {
			<-ctx.Done()
			close(ended)
			return slipswitch.Upstream{}, ctx.Err()
		}
		select {
		case <-release:
		case <-ctx.Done():
			t.Error("the call has ended with Shutdown")
		}
		return slipswitch.Upstream{URL: u.url}, nil
	})
	left, waits := g.dial(), g.dial()
	left.send(request("GET", "/ws/left/"))
	waits.send(request("GET", "/ws/waits/"))
	for range 2 {
		receive(t, "Resolve is called", called)
	}
	left.reset()
	until(t, "one waits", func() bool { return resolver.Waiting() == 1 })
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	close(release)
	if a := waits.answer("GET"); a.body != "hello" {
		t.Errorf("got %s %q", a.Status, a.body)
	}
	receive(t, "the call of nobody ends", ended)
}

// TestResolverOutlivesItsFirstClient: who leaves takes nothing from those who
// wait on.
func TestResolverOutlivesItsFirstClient(t *testing.T) {
	u := answering(t, ok("hello"))
	release := make(chan struct{})
	g, resolver := resolving(t, func(ctx context.Context, m slipswitch.Match) (slipswitch.Upstream, error) {
		select {
		case <-release:
		case <-ctx.Done():
			t.Error("the call has ended with its first client")
		}
		return slipswitch.Upstream{URL: u.url}, nil
	})
	first, second := g.dial(), g.dial()
	first.send(request("GET", "/ws/a/"))
	until(t, "the first waits", func() bool { return resolver.Waiting() == 1 })
	second.send(request("GET", "/ws/a/"))
	until(t, "both wait", func() bool { return resolver.Waiting() == 2 })
	first.reset()
	until(t, "the first has left", func() bool { return resolver.Waiting() == 1 })
	close(release)
	if a := second.answer("GET"); a.body != "hello" {
		t.Errorf("got %s %q", a.Status, a.body)
	}
}

// TestResolverAnswers: what each of its answers becomes, for requests and
// handshakes alike.
func TestResolverAnswers(t *testing.T) {
	u := answering(t, ok("hello"))
	var upstream slipswitch.Upstream
	var failure error
	g, resolver := resolving(t, func(ctx context.Context, m slipswitch.Match) (slipswitch.Upstream, error) {
		if failure == context.DeadlineExceeded || failure == io.ErrNoProgress {
			<-ctx.Done()
		}
		if failure == errors.ErrUnsupported {
			panic("resolver")
		}
		return upstream, failure
	})
	resolver.Timeout = 50 * time.Millisecond
	for _, test := range []struct {
		upstream string
		err      error
		status   int
		retry    string
	}{
		{u.url, nil, 200, ""},
		{u.url + "/base", nil, 200, ""},
		{"", slipswitch.ErrNotFound, 404, ""},
		{u.url, fmt.Errorf("no: %w", slipswitch.ErrNotFound), 404, ""},
		{"", slipswitch.ErrAsleep, 503, "2"},
		{"", &slipswitch.Error{Status: 503, Reason: "soon", RetryAfter: 1500 * time.Millisecond, Err: slipswitch.ErrAsleep}, 503, "2"},
		{"", &slipswitch.Error{Status: 503, Reason: "later", RetryAfter: time.Minute, Err: slipswitch.ErrAsleep}, 503, "60"},
		{"", &slipswitch.Error{Reason: "soon", Err: slipswitch.ErrAsleep}, 503, "2"}, // what is not said is as usual
		{"", &slipswitch.Error{Reason: "gone", Err: slipswitch.ErrNotFound}, 404, ""},
		{"", &slipswitch.Error{RetryAfter: time.Second}, 502, "1"},
		{"", &slipswitch.Error{Status: 403, Reason: "not yours"}, 403, ""},
		{"", &slipswitch.Error{Status: 402, Reason: "not paid"}, 402, ""},
		{"", &slipswitch.Error{Status: 202, Reason: "is starting", Err: slipswitch.ErrAsleep}, 502, ""},
		{"", errors.New("10.0.0.7 has no such workspace"), 502, ""},
		{"", context.DeadlineExceeded, 504, ""},
		{"", io.ErrNoProgress, 504, ""},      // late, in its own words
		{"", errors.ErrUnsupported, 502, ""}, // panics
		{"http://{1}.example.", nil, 502, ""},
		{"http://h/?q", nil, 502, ""},
	} {
		upstream, failure = slipswitch.Upstream{URL: test.upstream}, test.err
		for _, raw := range []string{request("GET", "/ws/a/x"), handshake("/ws/a/x")} {
			a := g.do(raw)
			if a.StatusCode != test.status || a.Header.Get("Retry-After") != test.retry || strings.Contains(a.body, "10.0.0.7") {
				t.Errorf("%v, %v: got %s, Retry-After %q, %q; want %d, %q", test.upstream, test.err, a.Status, a.Header.Get("Retry-After"), a.body, test.status, test.retry)
			}
			if said := a.Header.Get("Proxy-Status"); strings.HasSuffix(said, "=") {
				t.Errorf("%v: Proxy-Status %q", test.err, said)
			}
		}
	}
}

// TestResolverWithoutUpstream: the zero Upstream means the route's own.
func TestResolverWithoutUpstream(t *testing.T) {
	u := answering(t, ok("hello"))
	g := startGateway(t, &slipswitch.Proxy{Resolver: &slipswitch.Resolver{
		Resolve: func(context.Context, slipswitch.Match) (slipswitch.Upstream, error) {
			return slipswitch.Upstream{}, nil
		}}})
	own := route("/own", u)
	own.Resolve = true
	g.put(own, slipswitch.Route{Path: "/none", Resolve: true})
	if a := g.get("/own"); a.StatusCode != 200 {
		t.Errorf("got %s; want 200", a.Status)
	}
	if a := g.get("/none"); a.StatusCode != 502 {
		t.Errorf("got %s; want 502", a.Status)
	}
	g.Resolver = nil
	if a := g.get("/own"); a.StatusCode != 502 {
		t.Errorf("without a resolver: got %s; want 502", a.Status)
	}
}

// TestResolverIsBounded: neither requests nor calls pile up.
func TestResolverIsBounded(t *testing.T) {
	u := answering(t, ok("hello"))
	release := make(chan struct{})
	g, resolver := resolving(t, func(context.Context, slipswitch.Match) (slipswitch.Upstream, error) {
		<-release
		return slipswitch.Upstream{URL: u.url}, nil
	})
	resolver.MaxWaiting, resolver.MaxWaitingPerCall = 2, 2
	var clients []*peer
	for range 2 {
		client := g.dial()
		client.send(request("GET", "/ws/a/"))
		clients = append(clients, client)
	}
	until(t, "both wait", func() bool { return resolver.Waiting() == 2 })
	if a := g.get("/ws/a/"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("the third to wait: got %s; want 503", a.Status)
	}
	clients[1].reset()
	until(t, "one has left", func() bool { return resolver.Waiting() == 1 })
	other := g.dial()
	other.send(request("GET", "/ws/b/"))
	until(t, "another came", func() bool { return resolver.Waiting() == 2 })
	other.reset() // the call goes on
	until(t, "it has left", func() bool { return resolver.Waiting() == 1 })
	if a := g.get("/ws/c/"); a.StatusCode != 503 {
		t.Errorf("the third call: got %s; want 503", a.Status)
	}
	close(release)
	if a := clients[0].answer("GET"); a.StatusCode != 200 {
		t.Errorf("got %s", a.Status)
	}
}

// TestResolverShares: the crowd at one sleeping workspace keeps nobody from another.
func TestResolverShares(t *testing.T) {
	for name, test := range map[string]struct{ all, each, want int }{
		"a tenth": {50, 0, 5}, "at least one": {5, 0, 1}, "as it is set": {50, 40, 40},
	} {
		t.Run(name, func(t *testing.T) {
			u := answering(t, ok("hello", "Connection: close"))
			release := make(chan struct{})
			g, resolver := resolving(t, func(_ context.Context, m slipswitch.Match) (slipswitch.Upstream, error) {
				if m.Capture("1") == "asleep" {
					<-release
				}
				return slipswitch.Upstream{URL: u.url}, nil
			})
			resolver.MaxWaiting, resolver.MaxWaitingPerCall = test.all, test.each
			var crowd []*peer
			for range test.want {
				client := g.dial()
				client.send(request("GET", "/ws/asleep/"))
				crowd = append(crowd, client)
			}
			until(t, "the crowd waits", func() bool { return resolver.Waiting() == test.want })
			if a := g.get("/ws/asleep/"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
				t.Errorf("one more: got %s; want 503 with Retry-After", a.Status)
			}
			if a := g.get("/ws/awake/"); a.StatusCode != 200 {
				t.Errorf("another workspace: got %s; want 200", a.Status)
			}
			if got := g.LimitsHit(); len(got) != 1 || got["waitingPerCall"] != 1 {
				t.Errorf("limits hit: %v; want waitingPerCall once", got)
			}
			close(release)
			for _, client := range crowd {
				if a := client.answer("GET"); a.StatusCode != 200 {
					t.Errorf("got %s; want 200", a.Status)
				}
			}
			until(t, "none waits", func() bool { return resolver.Waiting() == 0 })
		})
	}
}

// TestResolverComesBehindMiddleware: who may not see a workspace does not wake it.
func TestResolverComesBehindMiddleware(t *testing.T) {
	resolver := &slipswitch.Resolver{Resolve: func(context.Context, slipswitch.Match) (slipswitch.Upstream, error) {
		t.Error("Resolve was called")
		return slipswitch.Upstream{}, nil
	}}
	g := startGateway(t, &slipswitch.Proxy{Resolver: resolver, Middleware: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) })
	}}, slipswitch.Route{Path: "/ws", Resolve: true})
	for _, raw := range []string{request("GET", "/ws"), handshake("/ws")} {
		if a := g.do(raw); a.StatusCode != 401 {
			t.Errorf("got %s; want 401", a.Status)
		}
	}
}

// TestWaitingPage: a browser's page looks again by itself, everybody else's
// request does not.
func TestWaitingPage(t *testing.T) {
	g, _ := resolving(t, func(context.Context, slipswitch.Match) (slipswitch.Upstream, error) {
		return slipswitch.Upstream{}, &slipswitch.Error{Status: 503, Reason: "ide-7 <sleeps>", RetryAfter: 3 * time.Second, Err: slipswitch.ErrAsleep}
	})
	const reload = `<meta http-equiv="refresh" content="3">`
	for _, test := range []struct {
		method, accept string
		reloads        bool
	}{
		{"GET", "text/html,application/xhtml+xml,*/*;q=0.8", true}, {"POST", "text/html", false}, {"GET", "*/*", false}, {"GET", "application/json", false},
	} {
		a := g.do(request(test.method, "/ws/a/", "Accept: "+test.accept))
		if a.StatusCode != 503 || a.Header.Get("Retry-After") != "3" || a.Header.Get("Cache-Control") != "no-store" || strings.Contains(a.body, reload) != test.reloads {
			t.Errorf("%s, %s: got %s, %q", test.method, test.accept, a.Status, a.body)
		}
		if strings.Contains(a.body, "<sleeps>") && test.reloads {
			t.Error("the reason is not escaped")
		}
	}
}

// TestResolverEndsWithClose: a call does not outlive the Proxy.
func TestResolverEndsWithClose(t *testing.T) {
	ended := make(chan struct{})
	g, resolver := resolving(t, func(ctx context.Context, _ slipswitch.Match) (slipswitch.Upstream, error) {
		<-ctx.Done()
		close(ended)
		return slipswitch.Upstream{}, ctx.Err()
	})
	client := g.dial()
	client.send(request("GET", "/ws/a/"))
	until(t, "it waits", func() bool { return resolver.Waiting() == 1 })
	g.Close()
	receive(t, "the resolver's context ends", ended)
	if a := client.answer("GET"); a.StatusCode != 502 {
		t.Errorf("got %s; want 502", a.Status)
	}
}
