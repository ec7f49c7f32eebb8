package main

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// rounds is how many interleaved runs a figure is the median of.
func rounds() int {
	if testing.Short() {
		return 1
	}
	return 7
}

// request is one lookup.
type request struct{ host, path string }

const host = "ide.example.com"

// routePath is the path of the i-th workspace. Its identifier is made as xid
// makes them: the time, here of a moment in the last year, a machine, a counter.
func routePath(i int) string {
	const year = 365 * 24 * 3600
	var id [12]byte
	binary.BigEndian.PutUint32(id[:], uint32(1_700_000_000+uint64(i)*0x9e3779b97f4a7c15%year))
	id[5], id[6], id[7] = 7, byte(i%16), 9
	binary.BigEndian.PutUint32(id[8:], uint32(i))
	return "/webapp-01/ide-w" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(id[:]))
}

// requests returns lookups for random workspaces out of n, for one page each.
func requests(n, count int, page string) []request {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	list := make([]request, count)
	for i := range list {
		list[i] = request{host, routePath(rng.IntN(n)) + page}
	}
	return list
}

var fourSegments = "/static/app.js"
var threeHundredBytes = func() string {
	page := strings.Repeat("/node_modules/lib", 20)
	return page[:300-len(routePath(0))]
}()

func route(i int) slipswitch.Route {
	return slipswitch.Route{
		Host: host, Path: routePath(i), StripPath: true,
		Upstreams: slipswitch.To("http://10.0.0.7:8080"),
		Labels:    map[string]string{"workspace": fmt.Sprint(i)},
	}
}

func tableOf(tb testing.TB, n int) *slipswitch.Router {
	router := new(slipswitch.Router)
	for from := 0; from < n; from += 100_000 {
		_, err := router.Update(func(tx *slipswitch.Txn) error {
			for i := from; i < min(from+100_000, n); i++ {
				tx.Put(route(i))
			}
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return router
}

// mapRouter is what one writes by hand: a map keyed host + path, probed from
// the longest prefix down. It is not locked, which is to its advantage.
type mapRouter map[string]*slipswitch.Route

func (m mapRouter) lookup(host, path string) *slipswitch.Route {
	var buf [512]byte
	key := append(append(buf[:0], host...), path...)
	for {
		if route := m[string(key)]; route != nil {
			return route
		}
		i := len(key) - 1
		for ; i >= 0 && key[i] != '/'; i-- {
		}
		if i < 0 {
			return nil
		}
		key = key[:i]
	}
}

// BenchmarkLookup compares a lookup with the same in a map: ns/lookup of both,
// and the median ratio of interleaved runs.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000, 1_000_000} {
		router := tableOf(b, n)
		table := router.Table()
		byMap := make(mapRouter, n)
		for e := range table.All() {
			route := e.Route()
			byMap[route.Host+route.Path] = route
		}
		for _, paths := range []struct {
			name, page string
		}{{"4segments", fourSegments}, {"300bytes", threeHundredBytes}} {
			for _, spread := range []struct {
				name  string
				count int
			}{{"hot", 64}, {"uniform", 1 << 18}} {
				asked := requests(n, spread.count, paths.page)
				b.Run(fmt.Sprintf("routes=%d/%s/%s", n, paths.name, spread.name), func(b *testing.B) {
					ours := func(r request) bool { _, err := table.Lookup(r.host, r.path); return err == nil }
					theirs := func(r request) bool { return byMap.lookup(r.host, r.path) != nil }
					for b.Loop() {
						compare(b, asked, ours, theirs)
					}
				})
			}
		}
		runtime.KeepAlive(router)
	}
}

// compare reports medians of interleaved runs, each of one lookup per request
// or more.
func compare(b *testing.B, asked []request, ours, theirs func(request) bool) {
	count := max(len(asked), 1<<17)
	run := func(lookup func(request) bool) float64 {
		start := time.Now()
		for i := range count {
			if !lookup(asked[i%len(asked)]) {
				b.Fatalf("no route for %v", asked[i%len(asked)])
			}
		}
		return float64(time.Since(start).Nanoseconds()) / float64(count)
	}
	run(ours)
	run(theirs)
	var a, m, ratio []float64
	for range rounds() {
		x, y := run(ours), run(theirs)
		a, m, ratio = append(a, x), append(m, y), append(ratio, x/y)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(a), "ns/lookup")
	b.ReportMetric(median(m), "ns/map")
	b.ReportMetric(median(ratio), "ratio")
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
