package routes

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// A workload is a set of routes and what is asked of them.
type workload struct {
	name  string
	about string
	route func(i int) route

	rest string // behind a route's path in what is asked
	size int    // how many routes there are; 0: as many as the caller says
}

// The two ways to tell workspaces apart.
var pathPerWorkspace = workload{
	name: "paths", about: "a path for each workspace, any host",
	route: func(i int) route { return route{path: run.Path(i), n: i} },
	rest:  "/static/app.js",
}

var hostPerWorkspace = workload{
	name: "hosts", about: "a host for each workspace, all of its paths",
	route: func(i int) route { return route{host: run.ID(i) + ".ide.example.com", n: i} },
	rest:  "/static/app.js",
}

// What somebody would choose who wants a lookup to be slow.
var adversarial = []workload{
	{
		name: "long common prefixes", about: "10,000 paths that differ behind 400 bytes",
		route: func(i int) route {
			return route{path: strings.Repeat("/workspaces-of-a-tenant-with-a-long-name", 10) + "/" + run.ID(i), n: i}
		},
		rest: "/static/app.js",
		size: 10_000,
	},
	{
		name: "nested prefixes", about: "64 routes, each in the one before, and 10,000 others",
		route: func(i int) route {
			if i < 64 {
				return route{path: strings.Repeat("/nested", i+1), n: i}
			}
			return route{path: run.Path(i), n: i}
		},
		rest: "/static/app.js",
		size: 10_064,
	},
	{
		name: "8 KB paths", about: "10,000 routes, asked for with 8 KB behind their path",
		route: pathPerWorkspace.route,
		rest:  strings.Repeat("/x", 4096),
		size:  10_000,
	},
	{
		name: "127-label hosts", about: "10,000 hosts of 127 labels that begin alike",
		route: func(i int) route {
			return route{host: strings.Repeat("a.", 122) + fmt.Sprintf("%x.%x.%x.%x.b", i>>12, i>>8&15, i>>4&15, i&15), n: i}
		},
		rest: "/static/app.js",
		size: 10_000,
	},
}

func workloadOf(name string) (workload, error) {
	for _, w := range append([]workload{pathPerWorkspace, hostPerWorkspace}, adversarial...) {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("there is no workload %q", name)
}

// A query is one lookup. n is the number of the route that has to be found, -1
// if there is none.
type query struct {
	host, path string
	n          int
}

// spreads are how queries are spread over routes.
var spreads = []string{"hot", "Zipf", "uniform", "miss"}

// spreads are those that are measured: what is adversarial is so for each query.
func (w workload) spreads() []string {
	if w.size > 0 {
		return []string{"uniform"}
	}
	return spreads
}

// queries returns what to ask of n routes.
func (w workload) queries(spread string, n int) []query {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	count, pick := 1<<16, func() int { return random.IntN(n) }
	switch spread {
	case "hot":
		count = 64
	case "Zipf":
		zipf := rand.NewZipf(random, 1.1, 1, uint64(n-1))
		// The most wanted are not next to each other.
		pick = func() int { return int(zipf.Uint64() * 7919 % uint64(n)) }
	case "uniform", "miss":
		count = max(1<<12, min(n, 1<<18))
	}
	if len(w.rest) > 1000 {
		count = min(count, 1<<10)
	}
	list := make([]query, count)
	for i := range list {
		r := w.route(pick())
		host := r.host
		if host == "" {
			host = "ide.example.com"
		}
		list[i] = query{host, r.path + w.rest, r.n}
		if spread == "miss" { // differs in its last byte
			if list[i].n = -1; r.host != "" {
				list[i].host = host[:len(host)-1] + "x"
			} else {
				list[i].path = r.path[:len(r.path)-1] + "~" + w.rest
			}
		}
	}
	return list
}
