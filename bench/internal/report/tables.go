package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// A table is one of a scenario: a row for each peer, a column for each metric.
type table struct {
	title    string
	scenario string
	columns  []column
}

type column struct {
	name, of, metric string // of is the case, with "/bare" or "bare" behind it for ratios
	less             bool   // is better
}

var gatewayTables = []table{
	{"Tunnels that 20 changes of other routes cut", "cuts", []column{
		{"cut", "", "cut", true}, {"of", "", "of", false}, {"processes at most", "", "processes", false}}},
	{"A quiet tunnel", "memory", []column{
		{"KiB cold", "", "KiB cold", true}, {"KiB after 64 KiB each way", "", "KiB after traffic", true}, {"descriptors", "", "descriptors", false}, {"MiB without tunnels", "", "MiB at start", true}}},
	{"Processor seconds per GiB, by message size", "bulk", []column{
		{"1 KiB", "", "CPU s/GiB at 1 KiB", true}, {"16 KiB", "", "CPU s/GiB at 16 KiB", true}, {"128 KiB", "", "CPU s/GiB at 128 KiB", true}, {"1 MiB", "", "CPU s/GiB at 1024 KiB", true}}},
	{"Messages of 64 bytes, to and fro on 64 tunnels", "message", []column{
		{"CPU µs each", "", "CPU µs", true}, {"of bare", "bare", "CPU µs", false}, {"p50 µs, there and back, at 2,000/s", "", "p50 µs", true}, {"p99 µs", "", "p99 µs", true}, {"a second, closed loop", "", "per second", false}}},
	{"HTTP with 10 routes", "requests", []column{
		{"a second, closed loop", "10 routes", "per second", false}, {"CPU µs each", "10 routes", "CPU µs", true}, {"of bare", "10 routes/bare", "CPU µs", false}, {"p50 µs at 800/s", "10 routes", "p50 µs", true}, {"p99 µs", "10 routes", "p99 µs", true}}},
	{"HTTP with 10,000 routes", "requests", []column{
		{"a second, closed loop", "10000 routes", "per second", false}, {"CPU µs each", "10000 routes", "CPU µs", true}, {"of bare", "10000 routes/bare", "CPU µs", false}, {"p50 µs at 800/s", "10000 routes", "p50 µs", true}, {"p99 µs", "10000 routes", "p99 µs", true}}},
	{"Handshakes", "handshakes", []column{
		{"a second", "", "per second", false}, {"of bare", "bare", "per second", false}, {"CPU µs each", "", "CPU µs", true}}},
	{"From a change to the first 200", "change", []column{
		{"ms with 10 routes", "10 routes", "ms", true}, {"slowest", "10 routes", "slowest ms", true}, {"ms with 10,000 routes", "10000 routes", "ms", true}, {"slowest", "10000 routes", "slowest ms", true}}},
	{"HTTP while routes change, 1,000 a second of 10,000", "storm", []column{
		{"p50 µs, quiet", "", "quiet p50 µs", true}, {"p99 µs, quiet", "", "quiet p99 µs", true}, {"p50 µs", "", "p50 µs", true}, {"p99 µs", "", "p99 µs", true}, {"worst ms", "", "worst ms", true}, {"changes taken a second", "", "changes per second", false}}},
}

func tables(gateways, routes run.Results) string {
	var b strings.Builder
	if gateways.Rows != nil {
		b.WriteString("## Gateways\n\n" + head(gateways) + "\n")
		for _, t := range gatewayTables {
			t.write(&b, gateways.Rows)
		}
		writeAhead(&b, gateways.Rows)
	}
	if routes.Rows != nil {
		b.WriteString("## Routers\n\n" + head(routes) + "\n")
		writeRouters(&b, routes.Rows)
	}
	b.WriteString("Medians of the rounds; ± is half the distance between the quartiles. \"of bare\" is the median of the ratios in each round. ~: for most\n" +
		"rounds the machine was busy with something else, or its owner with other machines, for more than 5 % of it. –: does not apply.\n")
	return b.String()
}

func head(r run.Results) string {
	h := r.Head
	short := ""
	if h.Short {
		short = " **With -short: figures only to see that all works.**"
	}
	text := fmt.Sprintf("`%s`, %s, %s, %d cores, %.0f GiB, %s, %s.%s\n", h.Command, h.Began, h.Machine, h.Cores, float64(h.Memory)/(1<<30), h.Kernel, h.Go, short)
	var list []string
	for _, peer := range slices.Sorted(maps.Keys(h.Versions)) {
		list = append(list, peer+" "+h.Versions[peer])
	}
	for _, peer := range slices.Sorted(maps.Keys(h.Missing)) {
		list = append(list, "**"+peer+" is missing**: "+h.Missing[peer])
	}
	return text + strings.Join(list, ", ") + ".\n"
}

func (t table) write(b *strings.Builder, rows []run.Row) {
	names := peers(rows, t.scenario)
	if len(names) == 0 {
		return
	}
	fmt.Fprintf(b, "### %s\n\n| |", t.title)
	for _, c := range t.columns {
		fmt.Fprintf(b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(t.columns)) + "\n")
	reasons := map[string]string{}
	for _, peer := range names {
		fmt.Fprintf(b, "| %s |", peer)
		for _, c := range t.columns {
			name, to, isRatio := c.of, "bare", c.name == "of bare"
			if isRatio {
				name, _, _ = strings.Cut(c.of, "/")
				if name == "bare" {
					name = ""
				}
			}
			f := of(rows, t.scenario, name, peer, c.metric)
			if f.na != "" {
				reasons[f.na] = peer
			}
			if isRatio && f.known() {
				f = ratio(rows, t.scenario, name, peer, to, c.metric)
			}
			fmt.Fprintf(b, " %v |", f)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(b, "n/a: %s: %s\n\n", reasons[why], why)
	}
}

// writeAhead writes where slipswitch is not the best, and who is, by how much.
func writeAhead(b *strings.Builder, rows []run.Row) {
	b.WriteString("### Where others are ahead of slipswitch\n\nBy more than 5 %, as ratios of medians; the reasons stand [above](#why-others-are-ahead).\n\n| | slipswitch | ahead |\n|---|---|---|\n")
	for _, t := range gatewayTables {
		for _, c := range t.columns {
			if c.name == "of bare" || !c.less && c.metric != "per second" {
				continue
			}
			own := of(rows, t.scenario, c.of, "slipswitch", c.metric)
			var ahead []string
			for _, peer := range peers(rows, t.scenario) {
				other := of(rows, t.scenario, c.of, peer, c.metric)
				ratio := other.median() / own.median()
				if peer != "slipswitch" && peer != "direct" && other.known() && own.known() && (c.less && ratio < 0.95 || !c.less && ratio > 1.05) {
					ahead = append(ahead, peer+" "+number(ratio)+"×")
				}
			}
			if len(ahead) > 0 {
				fmt.Fprintf(b, "| %s: %s | %v | %s |\n", t.title, c.name, own, strings.Join(ahead, ", "))
			}
		}
	}
	b.WriteString("\n")
}

// writeRouters writes one table for each workload: a row for each router, a
// column for each number of routes.
func writeRouters(b *strings.Builder, rows []run.Row) {
	names := peers(rows, "build")
	grid := func(title, scenario, metric string, factor float64, columns []string, heads []string) {
		if len(columns) == 0 {
			return // there was no time for it
		}
		fmt.Fprintf(b, "### %s\n\n| | %s |\n|---|%s\n", title, strings.Join(heads, " | "), strings.Repeat("---|", len(heads)))
		for _, peer := range names {
			fmt.Fprintf(b, "| %s |", peer)
			for _, c := range columns {
				f := of(rows, scenario, c, peer, metric)
				for i := range f.values {
					f.values[i] *= factor
				}
				text := f.String()
				if !f.known() {
					text = "n/a"
				}
				if rebuilt := of(rows, scenario, c, peer, "rebuilt"); rebuilt.known() {
					text += " †"
				}
				fmt.Fprintf(b, " %s |", text)
			}
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	for _, workload := range []string{"paths", "hosts"} {
		sizes, heads := sizesOf(rows, workload)
		for _, spread := range []string{"hot", "Zipf", "uniform", "miss"} {
			var columns []string
			for _, n := range sizes {
				columns = append(columns, fmt.Sprintf("%s, %d routes, %s", workload, n, spread))
			}
			grid(fmt.Sprintf("ns for a lookup: %s, %s", workload, spread), "lookup", "ns", 1, columns, heads)
		}
		var columns []string
		for _, n := range sizes {
			columns = append(columns, fmt.Sprintf("%s, %d routes", workload, n))
		}
		grid("µs for a change: "+workload, "change", "ns", 0.001, columns, heads)
		grid("Bytes for a route: "+workload, "build", "bytes per route", 1, columns, heads)
	}
	b.WriteString("†: cannot change while it serves, so it is built anew.\n\n")
	var columns, heads []string
	for _, name := range cases(rows, "lookup") {
		if !strings.HasPrefix(name, "paths, ") && !strings.HasPrefix(name, "hosts, ") {
			columns, heads = append(columns, name), append(heads, strings.TrimSuffix(name, ", uniform"))
		}
	}
	grid("ns for a lookup: adversarial", "lookup", "ns", 1, columns, heads)
	for _, metric := range []string{"p50 ns", "p99 ns", "p99.9 ns", "per second", "changes per second", "behind ms"} {
		grid("All cores, 10,000 routes, while they change: "+metric, "storm", metric, 1, cases(rows, "storm"), cases(rows, "storm"))
	}
	reasons := map[string]bool{}
	for _, row := range rows {
		if row.NA != "" {
			reasons[fmt.Sprintf("%s: %s: %s", row.Peer, row.Case, row.NA)] = true
		}
	}
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(b, "- n/a: %s\n", why)
	}
	b.WriteString("\n")
}

// sizesOf returns the numbers of routes that a workload was measured with.
func sizesOf(rows []run.Row, workload string) (sizes []int, heads []string) {
	for _, name := range cases(rows, "build") {
		var n int
		if _, err := fmt.Sscanf(name, workload+", %d routes", &n); err == nil && !slices.Contains(sizes, n) {
			sizes, heads = append(sizes, n), append(heads, thousands(n))
		}
	}
	return sizes, heads
}
