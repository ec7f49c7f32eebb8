package gateways

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// A scenario is something to do to each gateway. To add one, write a file with
// it, and add it to scenarios.
type scenario struct {
	name     string
	routes   []int         // a case for each number of routes
	weight   float64       // seconds that a round of one case takes with all peers
	rounds   int           // at most; 0: no limit
	changes  bool          // routes change: for peers that have some
	itself   bool          // it is about the peers' processes: there is nothing to it without one
	together bool          // all gateways at once
	patience time.Duration // with one measurement
	measure  func(ctx context.Context, s *site, g *gateway) (run.Values, run.Series, error)
}

var scenarios = []*scenario{cuts, memory, bulk, message, requests, handshakes, change, storm}

// takes returns whether a scenario has something to tell of a peer.
func (s *scenario) takes(p *peer) bool {
	return (s.changes || !p.onlyChanges) && (p != directPeer || !s.changes && !s.itself)
}

// A site is what a case is measured with.
type site struct {
	short   bool
	grace   time.Duration // see setup
	routes  []string
	backend *backend
}

// during is how long to measure: full, or a fraction with -short.
func (s *site) during(full time.Duration) time.Duration {
	if s.short {
		return full / 5
	}
	return full
}

// A latency is what a histogram of microseconds tells, by names with a prefix.
func latency(values run.Values, prefix string, h *hdrhistogram.Histogram) {
	values[prefix+"p50 µs"] = float64(h.ValueAtQuantile(50)) / 1000
	values[prefix+"p99 µs"] = float64(h.ValueAtQuantile(99)) / 1000
}

// histograms are one for each worker, of nanoseconds up to a minute.
type histograms struct {
	mu  sync.Mutex
	all *hdrhistogram.Histogram
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1000, int64(time.Minute), 3) }

func (h *histograms) add(one *hdrhistogram.Histogram) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = newHistogram()
	}
	h.all.Merge(one)
}
