package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// load sends GET requests for random workspaces over 32 connections for a
// while, each when the last is answered, and returns how long each took.
func load(b *testing.B, addr string, n int, during time.Duration) (took []time.Duration) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(during)
	for c := range 32 {
		wg.Go(func() {
			conn, err := dial(addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			var own []time.Duration
			for i := c; time.Now().Before(end); i += 32 {
				begin := time.Now()
				fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", routePath(i*7919%n), fourSegments, host)
				response, err := http.ReadResponse(in, nil)
				if err != nil || response.StatusCode != 200 {
					b.Errorf("the answer to a request: %v, %v", response, err)
					return
				}
				io.Copy(io.Discard, response.Body)
				own = append(own, time.Since(begin))
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return took
}

// BenchmarkHTTP compares requests through a gateway process with the same
// through a bare httputil.ReverseProxy, in interleaved runs: requests/s, and
// processor time per request of the proxying process only.
func BenchmarkHTTP(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			backend := start(b, "backend")
			ours, bare := start(b, "gateway", backend.addr, n, 0), start(b, "bare", backend.addr)
			load(b, ours.addr, n, time.Second)
			load(b, bare.addr, n, time.Second)
			for b.Loop() {
				var rate, cpu, absolute []float64
				for range rounds() {
					a, aCPU := cost(b, ours, n)
					m, mCPU := cost(b, bare, n)
					rate, cpu, absolute = append(rate, a/m), append(cpu, aCPU/mCPU), append(absolute, aCPU)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(rate), "rate-ratio")
				b.ReportMetric(median(cpu), "CPU-ratio")
				b.ReportMetric(median(absolute), "CPU-µs/request")
			}
		})
	}
}

// cost returns requests/s and the proxy's processor time per request in µs.
func cost(b *testing.B, p *process, n int) (rate, cpu float64) {
	before := p.cpu()
	begin := time.Now()
	done := float64(len(load(b, p.addr, n, time.Second)))
	return done / time.Since(begin).Seconds(), float64((p.cpu() - before).Microseconds()) / done
}

// BenchmarkHTTPDuringChanges compares the time of requests through a gateway
// that applies 10,000 changes/s with one that applies none.
func BenchmarkHTTPDuringChanges(b *testing.B) {
	const n = 10_000
	backend := start(b, "backend")
	changing, still := start(b, "gateway", backend.addr, n, 10_000), start(b, "gateway", backend.addr, n, 0)
	load(b, changing.addr, n, time.Second)
	load(b, still.addr, n, time.Second)
	for b.Loop() {
		var p50, p999 []float64
		for range rounds() {
			a, m := load(b, changing.addr, n, 2*time.Second), load(b, still.addr, n, 2*time.Second)
			p50 = append(p50, quantile(a, 0.5)/quantile(m, 0.5))
			p999 = append(p999, quantile(a, 0.999)/quantile(m, 0.999))
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(p50), "p50-ratio")
		b.ReportMetric(median(p999), "p99.9-ratio")
	}
}

func quantile(took []time.Duration, q float64) float64 {
	if len(took) == 0 {
		return math.NaN() // why has been told
	}
	slices.Sort(took)
	return float64(took[int(float64(len(took)-1)*q)])
}

// BenchmarkLookupDuringChanges compares lookups on all cores while a writer
// applies 10,000 changes/s with the same without it.
func BenchmarkLookupDuringChanges(b *testing.B) {
	const n = 10_000
	router := tableOf(b, n)
	asked := requests(n, 1<<14, fourSegments)
	measure := func(rate int) float64 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		if rate > 0 {
			wg.Go(func() { change(router, n, rate, stop) })
		}
		defer wg.Wait()
		defer close(stop)
		return lookups(b, router, asked, 300*time.Millisecond)
	}
	for b.Loop() {
		var ratio, absolute []float64
		for range rounds() {
			with, without := measure(10_000), measure(0)
			ratio, absolute = append(ratio, with/without), append(absolute, with)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(ratio), "ratio")
		b.ReportMetric(median(absolute), "lookups/s")
	}
}

// lookups returns how many lookups a second there are on all cores together.
func lookups(b *testing.B, router *slipswitch.Router, asked []request, during time.Duration) float64 {
	var done atomic.Int64
	begin := time.Now()
	var readers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		readers.Go(func() {
			count := 0
			for i := 0; i%1024 != 0 || time.Since(begin) < during; i++ {
				r := asked[i%len(asked)]
				if _, err := router.Lookup(r.host, r.path); err != nil {
					b.Error(err)
					return
				}
				count++
			}
			done.Add(int64(count))
		})
	}
	readers.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds()
}
