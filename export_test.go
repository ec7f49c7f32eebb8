package slipswitch

import "time"

// Spread calls end n times as tunnels are ended over a window.
func Spread(n int, window time.Duration, end func()) {
	tunnels := make([]*Tunnel, n)
	for i := range tunnels {
		tunnels[i] = new(Tunnel)
	}
	spread(nil, tunnels, window, func(*Tunnel) { end() })
}

// Reports is the queue of a Proxy's reports.
type Reports = reports

// NewReports returns one with hooks.
func NewReports(closed func(CloseReport), burst func(Burst)) *Reports {
	return &Reports{closed: closed, burst: burst}
}

func (q *reports) Add(r CloseReport)     { q.add(r) }
func (q *reports) Done() <-chan struct{} { return q.done() }
func (q *reports) Bursts() []Burst       { return q.bursts.all() }
func (q *reports) Closes() []CloseReport { return q.closes.all() }
