package slipswitch_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
)

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
			time.Sleep(pause - time.Millisecond)
			v.ask(p, "/a", 20)
			if got := ejected(p, key); tried.Load() != before || len(got) != 1 {
				t.Errorf("within %v: tried %d times, ejected are %q", pause, tried.Load()-before, got)
			}
			time.Sleep(time.Millisecond)
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
