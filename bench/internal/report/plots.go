package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// plots are all, by the names of their files.
func plots(gateways, routes run.Results) map[string][]byte {
	all := map[string][]byte{}
	add := func(name string, p *plot) {
		if p.drawable() {
			all[name] = p.svg()
		}
	}
	for _, spread := range []string{"hot", "uniform"} {
		add("lookup-"+spread, lookupPlot(routes, spread))
	}
	add("memory", memoryPlot(gateways))
	add("changes", changesPlot(gateways))
	add("cuts", cutsPlot(gateways))
	return all
}

func lookupPlot(r run.Results, spread string) *plot {
	p := &plot{title: "A lookup against the number of routes, " + spread + ", a path for each workspace", x: "routes", y: "ns", logX: true, logY: true}
	sizes, _ := sizesOf(r.Rows, "paths")
	for _, peer := range peers(r.Rows, "lookup") {
		l := line{name: peer}
		for _, n := range sizes {
			f := of(r.Rows, "lookup", fmt.Sprintf("paths, %d routes, %s", n, spread), peer, "ns")
			if f.known() {
				l.points = append(l.points, [2]float64{float64(n), f.median()})
			}
		}
		p.lines = append(p.lines, l)
	}
	return p
}

func memoryPlot(r run.Results) *plot {
	p := &plot{title: "Memory against the number of tunnels that nobody has used", x: "tunnels", y: "MiB"}
	for _, peer := range peers(r.Rows, "memory") {
		at := map[float64][]float64{}
		for _, row := range r.Rows {
			if row.Scenario == "memory" && row.Peer == peer {
				for _, point := range row.Series {
					at[point[0]] = append(at[point[0]], (point[1]-row.Series[0][1])/(1<<20))
				}
			}
		}
		l := line{name: peer}
		for x, ys := range at {
			slices.Sort(ys)
			l.points = append(l.points, [2]float64{x, math.Max(0, ys[len(ys)/2])})
		}
		slices.SortFunc(l.points, func(a, b [2]float64) int { return int(a[0] - b[0]) })
		p.lines = append(p.lines, l)
	}
	return p
}

func changesPlot(r run.Results) *plot {
	p := &plot{title: "p99 of requests, without changes and during 1,000 a second, 10,000 routes", y: "ms", logY: true,
		bars: [2]string{"without", "during"}}
	for _, peer := range peers(r.Rows, "storm") {
		quiet, during := of(r.Rows, "storm", "", peer, "quiet p99 µs"), of(r.Rows, "storm", "", peer, "p99 µs")
		if quiet.known() && during.known() {
			p.lines = append(p.lines, line{name: peer, points: [][2]float64{{0, quiet.median() / 1000}, {1, during.median() / 1000}}})
		}
	}
	return p
}

func cutsPlot(r run.Results) *plot {
	p := &plot{title: "Tunnels cut after 20 changes of other routes, of 64", x: "seconds since the first change", y: "cut", steps: true}
	for _, peer := range peers(r.Rows, "cuts") {
		for _, row := range r.Rows {
			if row.Scenario == "cuts" && row.Peer == peer && len(row.Series) > 0 {
				p.lines = append(p.lines, line{name: peer, points: row.Series})
				break
			}
		}
	}
	return p
}
