package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// A figure is what rounds have told of one metric of one peer.
type figure struct {
	values []float64 // sorted
	noisy  int       // of them
	na     string    // why there are none
}

// of collects a figure from rows.
func of(rows []run.Row, scenario, name, peer, metric string) (f figure) {
	for _, row := range rows {
		if row.Scenario != scenario || row.Case != name || row.Peer != peer {
			continue
		}
		if row.NA != "" {
			f.na = row.NA
			continue
		}
		value, found := row.Values[metric]
		if !found {
			continue
		}
		f.values = append(f.values, value)
		if row.Noise >= run.Noisy {
			f.noisy++
		}
	}
	slices.Sort(f.values)
	return f
}

func (f figure) known() bool { return len(f.values) > 0 }

func (f figure) median() float64 {
	n := len(f.values)
	if n == 0 {
		return math.NaN()
	}
	return (f.values[n/2] + f.values[(n-1)/2]) / 2
}

// spread is half the distance between the quartiles, as a share of the median.
func (f figure) spread() float64 {
	n := len(f.values)
	if n < 3 || f.median() == 0 {
		return 0
	}
	return (f.values[n-1-n/4] - f.values[n/4]) / 2 / f.median()
}

// String is the median, its spread, and a mark if most of it was measured while others
// used the machine.
func (f figure) String() string {
	if !f.known() {
		if f.na != "" {
			return "n/a"
		}
		return "–"
	}
	text := number(f.median())
	if s := f.spread(); s >= 0.005 {
		text += fmt.Sprintf(" ±%.0f%%", 100*s)
	}
	if f.noisy*2 > len(f.values) {
		text += " ~"
	}
	return text
}

// number has three digits that mean something.
func number(x float64) string {
	switch a := math.Abs(x); {
	case a == math.Trunc(a) && a < 1000:
		return fmt.Sprintf("%.0f", x)
	case a >= 100:
		return thousands(int(math.Round(x)))
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.2g", x)
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

// ratio is that of two peers round by round, which what disturbs both does not
// change.
func ratio(rows []run.Row, scenario, name, peer, to, metric string) (f figure) {
	of := map[int]float64{}
	for _, row := range rows {
		if row.Scenario == scenario && row.Case == name && row.Peer == to {
			of[row.Round] = row.Values[metric]
		}
	}
	for _, row := range rows {
		if row.Scenario == scenario && row.Case == name && row.Peer == peer && of[row.Round] != 0 && row.NA == "" {
			f.values = append(f.values, row.Values[metric]/of[row.Round])
			if row.Noise >= run.Noisy {
				f.noisy++
			}
		}
	}
	slices.Sort(f.values)
	return f
}

// unique returns what rows of a scenario have, in the order of the first.
func unique(rows []run.Row, scenario string, what func(run.Row) string) (list []string) {
	for _, row := range rows {
		if v := what(row); row.Scenario == scenario && !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

func cases(rows []run.Row, scenario string) []string {
	return unique(rows, scenario, func(r run.Row) string { return r.Case })
}

// order is that of peers in tables and legends.
var order = []string{"slipswitch", "bare", "nginx", "haproxy", "haproxy-reload", "caddy", "chp", "direct",
	"map", "trie", "ServeMux", "httprouter", "chi", "bunrouter", "gin", "echo"}

func peers(rows []run.Row, scenario string) []string {
	list := unique(rows, scenario, func(r run.Row) string { return r.Peer })
	slices.SortFunc(list, func(a, b string) int { return cmp.Compare(slices.Index(order, a), slices.Index(order, b)) })
	return list
}
