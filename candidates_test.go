package slipswitch_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
)

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

// Of two upstreams in these tests one cannot be reached, by its host's name.
var errRefused = errors.New("connection refused")

// TestEjectionGrows by the failures of one try after another, not by those of many
// at a time: it is for a second at first, however many ask.
func TestEjectionGrows(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		var tried atomic.Int64
		release := make(chan struct{})
		v.dials.Store(func(host string) error {
			if host == "one" {
				tried.Add(1)
			}
			<-release
			if host == "two" {
				return nil
			}
			return errRefused
		})
		key := v.put(p, slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://one", "http://two")})
		var running sync.WaitGroup
		for range 50 {
			running.Go(func() { p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a", nil)) })
		}
		synctest.Wait()
		if n := tried.Load(); n < 5 {
			t.Fatalf("only %d have tried it", n)
		}
		close(release)
		running.Wait()
		for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second} {
			before := tried.Load()
			time.Sleep(pause - 100*time.Millisecond)
			v.ask(p, "/a", 20)
			if got := ejected(p, key); tried.Load() != before || len(got) != 1 {
				t.Errorf("within %v: tried %d times, ejected are %q", pause, tried.Load()-before, got)
			}
			time.Sleep(100 * time.Millisecond)
			v.ask(p, "/a", 50)
			if n := tried.Load() - before; n != 1 {
				t.Errorf("after %v: tried %d times; want once", pause, n)
			}
		}
	})
}

// TestEjectionBeginsAnew when the upstream could be reached meanwhile; but what is
// only our own limit says nothing of it.
func TestEjectionBeginsAnew(t *testing.T) {
	for name, test := range map[string]struct {
		between error
		want    time.Duration // of the ejection behind it, where the one before was for 2 s
	}{
		"reached": {nil, time.Second},
		"limited": {&slipswitch.Error{Status: 503, Reason: "too many connections"}, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
				var answer atomic.Value
				answer.Store(&errRefused)
				var tried atomic.Int64
				v.dials.Store(func(host string) error {
					if host == "two" {
						return nil
					}
					tried.Add(1)
					return *answer.Load().(*error)
				})
				key := v.put(p, slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://one", "http://two")})
				try := func(says error) {
					answer.Store(&says)
					for before, n := tried.Load(), 0; tried.Load() == before; n++ {
						if n == 1000 {
							t.Fatalf("it is passed over still, before it may say %v", says)
						}
						p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a", nil))
					}
				}
				try(errRefused)
				time.Sleep(time.Second)
				try(errRefused)
				time.Sleep(2 * time.Second)
				try(test.between)
				if test.between == nil { // there is a connection to it now
					time.Sleep(2 * time.Minute)
				}
				try(errRefused)
				time.Sleep(test.want - time.Millisecond)
				if ejected(p, key) == nil {
					t.Errorf("it is passed over for less than %v", test.want)
				}
				time.Sleep(time.Millisecond)
				if got := ejected(p, key); got != nil {
					t.Errorf("after %v ejected are still %q", test.want, got)
				}
			})
		})
	}
}

// TestEjectedIsNoChoice: what is passed over is not tried because it is idle.
func TestEjectedIsNoChoice(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		var tried atomic.Int64
		release := make(chan struct{})
		v.dials.Store(func(host string) error {
			if host == "one" {
				tried.Add(1)
				return errRefused
			}
			<-release
			return nil
		})
		v.put(p, slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://one", "http://two")})
		var running sync.WaitGroup
		for range 20 {
			running.Go(func() { p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a", nil)) })
			synctest.Wait() // it is on its way to the one that is busy
		}
		if n := tried.Load(); n != 1 {
			t.Errorf("tried %d times; want once", n)
		}
		close(release)
		running.Wait()
	})
}

// TestEjectionsAreForgotten: upstreams that came and went leave nothing behind.
func TestEjectionsAreForgotten(t *testing.T) {
	checked(t, func(t *testing.T, v *village, p *slipswitch.Proxy) {
		v.dials.Store(func(string) error { return errRefused })
		most := 0
		for i := range 200 {
			v.put(p, slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(fmt.Sprint("http://x", i), fmt.Sprint("http://y", i))})
			p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/a", nil))
			time.Sleep(time.Minute)
			most = max(most, p.Loads())
		}
		if most > 100 {
			t.Errorf("up to %d of 400 were remembered", most)
		}
	})
}
