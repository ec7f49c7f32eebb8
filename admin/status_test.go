package admin_test

import (
	"errors"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

type status struct {
	Version         uint64
	Routes, Tunnels int
	Ready, Draining bool
	NotReady        string
	Started         time.Time
	Uptime          string
	Goroutines      int
	Heap            uint64
}

func TestStatus(t *testing.T) {
	var wrong atomic.Pointer[error]
	g := startGateway(t, &admin.Handler{
		Started: time.Now().Add(-90 * time.Second),
		Ready: func() error {
			if err := wrong.Load(); err != nil {
				return *err
			}
			return nil
		},
	})
	runtime.GC() // before the first one nothing is known of the heap
	check := func(want status, readyz int, text string) {
		t.Helper()
		got := decode[status](t, g.want(200, "GET", "/v1/status", ""))
		if since := time.Since(got.Started); since < 89*time.Second || since > 200*time.Second || got.Uptime < "1m30s" {
			t.Errorf("got started %v, uptime %s", got.Started, got.Uptime)
		}
		if got.Goroutines < 2 || got.Heap == 0 {
			t.Errorf("got %d goroutines, %d bytes of heap", got.Goroutines, got.Heap)
		}
		got.Started, got.Uptime, got.Goroutines, got.Heap = time.Time{}, "", 0, 0
		if got != want {
			t.Errorf("got %+v; want %+v", got, want)
		}
		if got := g.want(readyz, "GET", "/readyz", "", "Authorization: "); got.body != text {
			t.Errorf("readyz: got %q; want %q", got.body, text)
		}
		if got := g.want(200, "GET", "/livez", "", "Authorization: "); got.body != "ok\n" {
			t.Errorf("livez: got %q", got.body)
		}
	}
	check(status{Ready: true}, 200, "ok\n")
	put(t, g.router, "", slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(g.echo)}, slipswitch.Route{Path: "/b"})
	put(t, g.router, "other", slipswitch.Route{Path: "/a"})
	conn := g.dial("/a")
	check(status{Version: 2, Routes: 2, Tunnels: 1, Ready: true}, 200, "ok\n")

	// The reason may tell what only those with the token should know.
	wrong.Store(new(errors.New("store at 10.0.0.1 is down")))
	check(status{Version: 2, Routes: 2, Tunnels: 1, NotReady: "store at 10.0.0.1 is down"}, 503, "not ready\n")
	wrong.Store(nil)

	conn.CloseNow()
	if err := g.proxy.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(status{Version: 2, Routes: 2, Draining: true, NotReady: "draining"}, 503, "draining\n")

	bare := serve(t, &admin.Handler{})
	if got := bare.want(200, "GET", "/v1/status", ""); !strings.HasPrefix(got.body, `{"version":0,"routes":0,"tunnels":0,"ready":true,"draining":false,"goroutines":`) {
		t.Errorf("without a proxy: got %s", got.body)
	}
	bare.want(200, "GET", "/readyz", "")
	bare.want(400, "GET", "/v1/status?x=y", "")
}

// Probes need no token and no name, and nothing else is to be had by their way.
func TestProbes(t *testing.T) {
	h := &admin.Handler{Router: new(slipswitch.Router), Token: token}
	s := &server{t, httptest.NewServer(h.Probes()), h.Router}
	t.Cleanup(s.Close)
	for target, want := range map[string]int{
		"/livez": 200, "/readyz": 200,
		"/": 404, "/livez/": 404, "/%6civez": 404, "/v1/status": 404, "/v1/routes": 404, "/api/routes": 404, "/metrics": 404,
	} {
		if got := s.do("GET", target, "", "Authorization: Bearer "+token, "Host: probes.example"); got.status != want {
			t.Errorf("GET %s: got %d; want %d", target, got.status, want)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		s.want(405, method, "/readyz", "")
	}
	s.want(404, "PUT", "/v1/route?path=/a", `{"path":"/a"}`)
}
