package slipswitch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// names is how many different names TestNamesAreForgotten asks for:
//
//	SLIPSWITCH_NAMES=1000000 go test -run TestNamesAreForgotten -v .
func names(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("SLIPSWITCH_NAMES")); err == nil {
		return n
	}
	return 20_000
}

// heap returns how much is in use when all garbage is gone.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// flat wants do, which it calls n times from several goroutines, to leave nothing
// in memory, and certainly no 100 bytes for each call. What a tenth of the calls
// has left before does not count.
func flat(t *testing.T, n int, do func(i int)) {
	t.Helper()
	run := func(from, to int) {
		var next atomic.Int64
		next.Store(int64(from))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := int(next.Add(1)); i <= to; i = int(next.Add(1)) {
					do(i)
				}
			})
		}
		wg.Wait()
	}
	run(0, n/10)
	before := heap()
	run(n/10, n)
	after := heap()
	t.Logf("%d calls: %d KiB, after a tenth of them %d KiB", n, after>>10, before>>10)
	if after > before+uint64(n)*100+1<<18 {
		t.Errorf("the heap has grown from %d to %d KiB", before>>10, after>>10)
	}
}

// TestNamesAreForgotten: what strangers make a template lead to, whether it is
// there or not, costs no memory once it has been answered.
func TestNamesAreForgotten(t *testing.T) {
	u := startUpstream(t, func(r received) string {
		if strings.HasSuffix(r.target(), "/close") {
			return ok("hello", "Connection: close")
		}
		return ok("hello")
	})
	p := &slipswitch.Proxy{Logger: slog.New(slog.DiscardHandler),
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "down-") {
				return nil, errors.New("nobody at " + address)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", u.listener.Addr().String())
		},
		TemplateAddresses: behind,
	}
	g := startGateway(t, p, slipswitch.Route{Path: "/ws", Upstreams: slipswitch.To("http://{1:down-*,close-*}:8080")},
		slipswitch.Route{Path: "/h2c", Upstreams: slipswitch.To("h2c://{1:down-*}:8080")},
		slipswitch.Route{Path: "/tls", Upstreams: slipswitch.To("https://{1:down-*}:8080")})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	get := func(path string, want int) {
		q, _ := http.NewRequest("GET", "http://"+g.addr+path, nil)
		q.Host = host
		response, err := client.Do(q)
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: got %s; want %d", path, response.Status, want)
		}
	}
	flat(t, names(t), func(i int) {
		switch i % 20 {
		case 0:
			get(fmt.Sprintf("/ws/close-%d/close", i), 200)
		case 1:
			get(fmt.Sprintf("/h2c/down-%d", i), 502)
		case 2:
			get(fmt.Sprintf("/tls/down-%d", i), 502)
		default:
			get(fmt.Sprintf("/ws/down-%d", i), 502)
		}
		u.forget()
	})
}

// forget lets go of what was received and of closed connections.
func (u *upstream) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.received = nil
	if len(u.conns) > 100 {
		for _, p := range u.conns[:50] {
			p.Close()
		}
		u.conns = append([]*peer(nil), u.conns[50:]...)
	}
}

// TestRoutesAreForgotten: routes that come, are asked for once while their upstream
// is down, and go.
func TestRoutesAreForgotten(t *testing.T) {
	p := &slipswitch.Proxy{Logger: slog.New(slog.DiscardHandler), DialContext: dialer(func(string) {})}
	g := startGateway(t, p)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	flat(t, 5000, func(i int) {
		path := fmt.Sprintf("/ws-%d", i)
		g.put(slipswitch.Route{Path: path, Upstreams: slipswitch.To(fmt.Sprintf("http://ws-%d:8080", i))})
		q, _ := http.NewRequest("GET", "http://"+g.addr+path, nil)
		q.Host = host
		response, err := client.Do(q)
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != 502 {
			t.Errorf("got %s; want 502", response.Status)
		}
		if _, err := g.Router.Update(func(tx *slipswitch.Txn) error { tx.Delete(slipswitch.Key{Host: host, Path: path}); return nil }); err != nil {
			t.Error(err)
		}
	})
}

// TestAddressesShareNoConnection: what is kept of one upstream is never used for
// another, however fast they take turns.
func TestAddressesShareNoConnection(t *testing.T) {
	var upstreams []*upstream
	for i := range 4 {
		upstreams = append(upstreams, startUpstream(t, func(r received) string {
			if strings.HasSuffix(r.target(), "close") {
				return ok(strconv.Itoa(i), "Connection: close")
			}
			return ok(strconv.Itoa(i))
		}))
	}
	g := startGateway(t, &slipswitch.Proxy{})
	for i, u := range upstreams {
		g.put(route(fmt.Sprintf("/%d", i), u))
	}
	g.put(slipswitch.Route{Path: "/down", Upstreams: slipswitch.To(refusing(t))})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for n := range 300 {
				i := (worker + n) % 5
				path := "/down"
				if i < 4 {
					path = fmt.Sprintf("/%d/%s", i, []string{"close", "keep", "close"}[n%3])
				}
				ctx, cancel := context.WithCancel(t.Context())
				q, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.addr+path, nil)
				q.Host = host
				if n%7 == 0 {
					cancel() // before or in the midst of it
				}
				response, err := client.Do(q)
				if err == nil {
					body, _ := io.ReadAll(response.Body)
					response.Body.Close()
					if i < 4 && string(body) != strconv.Itoa(i) {
						t.Errorf("%s: got %s %q", path, response.Status, body)
					}
				} else if n%7 != 0 {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}
