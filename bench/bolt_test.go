package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
)

// fillBolt makes a file of the first n routes.
func fillBolt(b *testing.B, path string, n int) {
	b.Helper()
	s, err := boltstore.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	changes := make([]slipswitch.Change, n)
	for i := range changes {
		changes[i].Put = new(route(i))
	}
	if _, err := s.Write(b.Context(), "", changes...); err != nil {
		b.Fatal(err)
	}
}

// followBolt opens a file and returns when the router has its routes.
func followBolt(b *testing.B, path string) *store.Sync {
	b.Helper()
	s, err := boltstore.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	routes := &store.Sync{Source: s, Router: new(slipswitch.Router)}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { routes.Run(ctx) })
	b.Cleanup(func() { cancel(); running.Wait(); s.Close() })
	soon, done := context.WithTimeout(ctx, patience)
	defer done()
	if err := routes.Wait(soon, 0); err != nil {
		b.Fatalf("the routes of the file: %v", err)
	}
	return routes
}

// A keptConn is a client's connection that is kept alive.
type keptConn struct {
	net.Conn
	in *bufio.Reader
}

func dialKept(b *testing.B, addr string) *keptConn {
	b.Helper()
	conn, err := dial(addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &keptConn{conn, bufio.NewReader(conn)}
}

// get returns the status of an answer without a body.
func (c *keptConn) get(path string) (status int, err error) {
	fmt.Fprintf(c, "HEAD %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host)
	response, err := http.ReadResponse(c.in, &http.Request{Method: "HEAD"})
	if err != nil {
		return 0, err
	}
	return response.StatusCode, nil
}

// BenchmarkBoltChange is the time from a change to the moment at which the
// first request, sent over TCP when the change is acknowledged, has come through
// the proxy to its upstream; as a ratio to a bare write of 4 KiB with fdatasync
// on the same disk: medians, of pairs that alternate. TMPDIR says which disk.
//
// A commit of bbolt is two such syncs: of the pages that changed (the route's, two
// above it in the tree, the list of buckets, the free pages: 20 KiB in about three
// places), and of the meta page. So 2 is the least that is possible. Neither file
// grows meanwhile: both overwrite blocks that they have.
func BenchmarkBoltChange(b *testing.B) {
	const n = 10_000
	samples := 1000
	if testing.Short() {
		samples = 20
	}
	arrived := make(chan time.Time, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived <- time.Now() }))
	defer backend.Close()
	path := filepath.Join(b.TempDir(), "routes.db")
	fillBolt(b, path, n)
	routes := followBolt(b, path)
	front := httptest.NewServer(&slipswitch.Proxy{Router: routes.Router})
	defer front.Close()
	client := dialKept(b, front.Listener.Addr().String())
	bare, err := os.Create(filepath.Join(filepath.Dir(path), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()
	page := make([]byte, 4096)
	if _, err := bare.Write(make([]byte, 256*len(page))); err != nil {
		b.Fatal(err)
	}
	if err := bare.Sync(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var synced, kept, routed []time.Duration
		for i := range samples {
			begin := time.Now()
			if _, err := bare.WriteAt(page, int64(i%256*len(page))); err != nil {
				b.Fatal(err)
			}
			if err := fdatasync(bare); err != nil {
				b.Fatal(err)
			}
			synced = append(synced, time.Since(begin))

			changed := route(i * 7919 % n)
			changed.Path = fmt.Sprintf("%s-%d", changed.Path, i)
			changed.Upstreams = slipswitch.To(backend.URL)
			begin = time.Now()
			if _, err := routes.Apply(b.Context(), "", slipswitch.Change{Put: &changed}); err != nil {
				b.Fatal(err)
			}
			kept = append(kept, time.Since(begin))
			if status, err := client.get(changed.Path + "/"); status != http.StatusOK {
				b.Fatalf("the request after the change: %d, %v", status, err)
			}
			routed = append(routed, (<-arrived).Sub(begin))

			if _, err := routes.Apply(b.Context(), "", slipswitch.Change{Delete: new(changed.Key())}); err != nil {
				b.Fatal(err)
			}
		}
		bare := quantile(synced, 0.5)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(quantile(routed, 0.5)/bare, "routed/fdatasync")
		b.ReportMetric(quantile(kept, 0.5)/bare, "kept/fdatasync")
		b.ReportMetric(quantile(routed, 0.5)/1e3, "µs-routed-p50")
		b.ReportMetric(quantile(routed, 0.99)/1e3, "µs-routed-p99")
		b.ReportMetric(bare/1e3, "µs-fdatasync-p50")
	}
}

// BenchmarkBoltStart is the time from the start of examples/gateway until it
// is ready, with 100,000 routes in its file.
func BenchmarkBoltStart(b *testing.B) {
	n := 100_000
	if testing.Short() {
		n = 1000
	}
	program, err := buildGateway(b.Context(), dir, false)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "routes.db")
	fillBolt(b, path, n)
	for b.Loop() {
		var took []float64
		for range rounds() {
			begin := time.Now()
			g, err := startGateway(b.Context(), program, func(map[string]any) {}, "-data="+path)
			if err != nil {
				b.Fatal(err)
			}
			for g.call(b.Context(), "GET", "/readyz", nil, nil) != nil {
				if time.Since(begin) > patience {
					b.Fatalf("not ready after %v", patience)
				}
				time.Sleep(time.Millisecond)
			}
			took = append(took, time.Since(begin).Seconds())
			var status struct{ Routes int }
			if err := g.call(b.Context(), "GET", "/v1/status", nil, &status); err != nil || status.Routes != n {
				b.Fatalf("ready with %d routes, %v; want %d", status.Routes, err, n)
			}
			if err := g.stop(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(took), "s-until-ready")
	}
}

// BenchmarkLookupDuringWrites compares lookups on all cores while 100 batches
// of 10 routes each second are written to a file, with the same without.
func BenchmarkLookupDuringWrites(b *testing.B) {
	const n, rate = 10_000, 100
	during := 2 * time.Second
	if testing.Short() {
		during = 200 * time.Millisecond
	}
	path := filepath.Join(b.TempDir(), "routes.db")
	fillBolt(b, path, n)
	routes := followBolt(b, path)
	asked := requests(n, 1<<14, fourSegments)
	version := 0
	write := func(stop <-chan struct{}) (batches int) {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for begin := time.Now(); ; {
			select {
			case <-stop:
				return batches
			case <-tick.C:
			}
			for ; batches < int(time.Since(begin).Seconds()*rate); batches++ {
				version++
				changes := make([]slipswitch.Change, 10)
				for i := range changes {
					changed := route((version*10 + i) * 7919 % n)
					changed.Labels["version"] = fmt.Sprint(version)
					changes[i].Put = &changed
				}
				if _, err := routes.Apply(b.Context(), "", changes...); err != nil {
					b.Error(err)
					return batches
				}
			}
		}
	}
	for b.Loop() {
		var ratio, written []float64
		for range rounds() {
			stop, batches, begin := make(chan struct{}), make(chan int), time.Now()
			go func() { batches <- write(stop) }()
			with := lookups(b, routes.Router, asked, during)
			close(stop)
			written = append(written, float64(<-batches)/time.Since(begin).Seconds())
			ratio = append(ratio, with/lookups(b, routes.Router, asked, during))
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(ratio), "ratio")
		b.ReportMetric(median(written), "batches/s")
	}
}
