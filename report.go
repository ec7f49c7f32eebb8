package slipswitch

import (
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// Why says for what reason the gateway ended a tunnel, or when it was ended by a
// peer that had sent its FIN and then nothing: WhyLinger.
type Why string

const (
	WhyIdle            Why = "idle"             // Route.IdleTimeout: no byte either way
	WhyStall           Why = "stall"            // Route.StallTimeout: a peer took nothing
	WhyLife            Why = "life"             // Route.LifeTimeout
	WhyLinger          Why = "linger"           // 30 s without a byte after one side had ended
	WhyRouteDeleted    Why = "route deleted"    // Route.OnDelete
	WhyUpstreamRemoved Why = "upstream removed" // Route.OnUpstreamRemoved
	WhyDrain           Why = "drain"            // Proxy.Drain
	WhyShutdown        Why = "shutdown"         // Proxy.Shutdown or Close
	WhyAdmin           Why = "admin"            // Tunnel.Close
	WhyLoginExpired    Why = "login expired"    // Proxy.Reauthorize
)

// A CloseReport says who ended a tunnel, how and why. Each tunnel that was
// opened yields exactly one. It never holds a query: tokens stand there.
type CloseReport struct {
	Tunnel uint64 `json:"tunnel"`

	// By is "client", "upstream" or "gateway": whoever ended it first. What that
	// provoked the others to do is not the cause.
	By string `json:"by"`

	// How is "FIN", "RST", "timeout", "write error", "close frame" or "policy".
	How string `json:"how"`

	// Why is the gateway's reason: "idle", "life", "stall", "linger",
	// "shutdown". Empty if the gateway did not end it.
	Why string `json:"why,omitempty"`

	Errno string `json:"errno,omitempty"` // of the call that failed

	Route    Key       `json:"route"`
	Upstream string    `json:"upstream"`
	Client   string    `json:"client"`
	Opened   time.Time `json:"opened"`
	Closed   time.Time `json:"closed"`
	Traffic
	OpenVersion  uint64 `json:"openVersion"`  // of the table at the open
	CloseVersion uint64 `json:"closeVersion"` // and at the close

	Value any `json:"-"` // what Proxy.TunnelValue has returned
}

func (t *Tunnel) report(end splice.End) CloseReport {
	r := CloseReport{
		Tunnel:       t.id,
		By:           end.By.String(),
		How:          string(end.How),
		Why:          string(end.Why),
		Route:        t.match,
		Upstream:     t.upstream,
		Client:       t.client,
		Opened:       t.opened,
		Closed:       time.Now(),
		Traffic:      trafficOf(end.Stats),
		OpenVersion:  t.version,
		CloseVersion: t.proxy.Router.Table().Version(),
		Value:        t.value,
	}
	if end.Errno != 0 {
		r.Errno = end.Errno.Error()
	}
	return r
}

// reports are handed to the hook in the order in which they come in, by one
// goroutine that lives while there are any.
type reports struct {
	hook func(CloseReport)

	mu      sync.Mutex
	waiting []CloseReport
	idle    chan struct{} // closed when all are handed over; nil if none was ever
}

// add never waits.
func (q *reports) add(r CloseReport) {
	if q.hook == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.idle = make(chan struct{})
		go q.dispatch()
	}
	q.waiting = append(q.waiting, r)
}

// dispatch keeps a report in the queue until the hook has returned.
func (q *reports) dispatch() {
	for more := true; more; {
		q.mu.Lock()
		r := q.waiting[0]
		q.mu.Unlock()
		q.hook(r)
		q.mu.Lock()
		q.waiting = q.waiting[1:]
		if more = len(q.waiting) > 0; !more {
			q.waiting = nil
			close(q.idle)
		}
		q.mu.Unlock()
	}
}

// done returns a channel that is closed when all reports so far are handed
// over; nil if there are none.
func (q *reports) done() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	return q.idle
}
