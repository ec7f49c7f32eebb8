package slipswitch

import (
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// By is the side that ended a tunnel.
type By string

const (
	ByClient   By = "client"
	ByUpstream By = "upstream"
	ByGateway  By = "gateway"
)

// How is what ended a tunnel.
type How string

const (
	HowFIN        How = "FIN"         // a side closed its connection; the other followed, or lingered too long
	HowRST        How = "RST"         // a side reset its connection: its process died, or dropped unread data
	HowTimeout    How = "timeout"     // the gateway's, which Why names; or the kernel's: a side is unreachable
	HowWriteError How = "write error" // the connection of a side failed; Errno says how
	HowCloseFrame How = "close frame" // a side sent a WebSocket Close frame
	HowPolicy     How = "policy"      // the gateway closed it on purpose, which Why names
)

// Why is the gateway's reason for ending a tunnel. WhyLinger is also that of a
// tunnel that a side ended with a FIN.
type Why string

const (
	WhyIdle            Why = "idle"             // Route.IdleTimeout: no byte either way
	WhyStall           Why = "stall"            // Route.StallTimeout: a side read nothing
	WhyLife            Why = "life"             // Route.LifeTimeout
	WhyPing            Why = "ping"             // Route.PingEvery: the client sent nothing after a ping
	WhyLinger          Why = "linger"           // 30 s without a byte after a side had sent its FIN
	WhyRouteDeleted    Why = "route deleted"    // Route.OnDelete
	WhyUpstreamRemoved Why = "upstream removed" // Route.OnUpstreamRemoved
	WhyDrain           Why = "drain"            // Proxy.Drain
	WhyShutdown        Why = "shutdown"         // Proxy.Shutdown or Close
	WhyAdmin           Why = "admin"            // Tunnel.Close
	WhyLoginExpired    Why = "login expired"    // Proxy.Reauthorize
)

// A CloseReport says which side ended a tunnel, how and why. Each tunnel that was
// opened yields exactly one. It never has a query, as queries carry tokens.
type CloseReport struct {
	Tunnel uint64 `json:"tunnel"`

	// State is the cause in two letters, as proxies log it: By (C client, U
	// upstream, G gateway), then How (F FIN, R RST, T timeout, W write error, C
	// close frame, P policy).
	State string `json:"state"`

	By  By  `json:"by"` // the side that ended it first, not one that then followed
	How How `json:"how"`
	Why Why `json:"why,omitempty"` // empty if the gateway did not end it

	// Change is the change that ended the tunnel if Why is WhyRouteDeleted or
	// WhyUpstreamRemoved, and else nil.
	Change *TableChange `json:"change,omitempty"`

	Errno string `json:"errno,omitempty"` // of the system call that failed

	// ClientClose and UpstreamClose are the Close frames that each side sent,
	// first or in answer. Nil means that it sent none.
	ClientClose   *CloseFrame `json:"clientClose,omitempty"`
	UpstreamClose *CloseFrame `json:"upstreamClose,omitempty"`

	Route    Key       `json:"route"`
	Upstream string    `json:"upstream"`
	Client   string    `json:"client"` // Tunnel.Client
	Peer     string    `json:"peer"`   // Tunnel.Peer
	Opened   time.Time `json:"opened"`
	Closed   time.Time `json:"closed"`
	Traffic
	OpenVersion  uint64 `json:"openVersion"`  // of the table when it was opened
	CloseVersion uint64 `json:"closeVersion"` // and when it had ended

	Value any `json:"-"` // Tunnel.Value; nil in Proxy.CloseReports, and so in the REST API
}

// A TableChange is a change to a table that ended tunnels, by a [ClosePolicy].
type TableChange struct {
	Owner   string `json:"owner,omitempty"`   // of the route that was deleted or replaced
	Origin  string `json:"origin,omitempty"`  // of Txn.From: a store and its revision, or the user of the REST API
	Version uint64 `json:"version,omitempty"` // of the first table with the change
}

// A CloseFrame is the payload of a WebSocket Close frame that a side sent.
type CloseFrame struct {
	Code   uint16 `json:"code"`             // 1005 if the frame has none
	Reason string `json:"reason,omitempty"` // with Go escapes for all that is not printable
}

func (t *Tunnel) report(end splice.End) CloseReport {
	r := CloseReport{
		Tunnel:        t.id,
		By:            By(end.By.String()),
		How:           How(end.How),
		Why:           Why(end.Why),
		ClientClose:   closeFrameOf(end.Seen[splice.Client]),
		UpstreamClose: closeFrameOf(end.Seen[splice.Upstream]),
		Route:         t.match,
		Upstream:      t.upstream,
		Client:        t.client,
		Peer:          t.peer,
		Opened:        t.opened,
		Closed:        time.Now(),
		Traffic:       trafficOf(end.Stats),
		OpenVersion:   t.version,
		CloseVersion:  t.proxy.Router.Table().Version(),
		Value:         t.value,
	}
	r.State = string([]byte{r.By[0] &^ 0x20, r.How[0] &^ 0x20})
	if r.Why == WhyRouteDeleted || r.Why == WhyUpstreamRemoved {
		t.mu.Lock()
		r.Change = t.change
		t.mu.Unlock()
	}
	if end.Errno != 0 {
		r.Errno = end.Errno.Error()
	}
	return r
}

func closeFrameOf(seen splice.Seen) *CloseFrame {
	if !seen.Frame {
		return nil
	}
	quoted := strconv.Quote(seen.Reason)
	return &CloseFrame{seen.Code, quoted[1 : len(quoted)-1]}
}

// LogValue returns the report as a group of attributes, without empty ones.
// [slog.Any] with the key "" adds them without a group.
func (r CloseReport) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, 25)
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	frame := func(side string, f *CloseFrame) {
		if f != nil {
			attrs = append(attrs, slog.Int(side+"Code", int(f.Code)))
			add(side+"Reason", f.Reason)
		}
	}
	attrs = append(attrs, slog.Uint64("tunnel", r.Tunnel))
	add("state", r.State)
	add("by", string(r.By))
	add("how", string(r.How))
	add("why", string(r.Why))
	attrs = r.Change.append(attrs)
	add("errno", r.Errno)
	frame("client", r.ClientClose)
	frame("upstream", r.UpstreamClose)
	add("route", r.Route.String())
	add("upstream", r.Upstream)
	add("client", r.Client)
	add("peer", r.Peer)
	return slog.GroupValue(append(attrs,
		slog.String("lasted", r.Closed.Sub(r.Opened).Round(time.Millisecond).String()),
		slog.String("quiet", r.Closed.Sub(latest(r.LastData, r.Opened)).Round(time.Millisecond).String()),
		slog.Int64("clientBytes", r.ClientBytes), slog.Int64("upstreamBytes", r.UpstreamBytes),
		slog.Int64("clientMessages", r.ClientMessages), slog.Int64("upstreamMessages", r.UpstreamMessages),
		slog.Uint64("livedThrough", r.CloseVersion-r.OpenVersion))...)
}

// append appends the fields of a change that are set.
func (c *TableChange) append(attrs []slog.Attr) []slog.Attr {
	if c == nil {
		return attrs
	}
	if c.Owner != "" {
		attrs = append(attrs, slog.String("changeOwner", c.Owner))
	}
	if c.Origin != "" {
		attrs = append(attrs, slog.String("changeOrigin", c.Origin))
	}
	if c.Version != 0 {
		attrs = append(attrs, slog.Uint64("changeVersion", c.Version))
	}
	return attrs
}

// reports hands reports and bursts to the hooks, in order, from one goroutine
// that lives while there are any. It keeps the last ones.
type reports struct {
	closed  func(CloseReport)
	burst   func(Burst)
	dropped func() // is called for each that is not handed over; must not block

	mu      sync.Mutex
	waiting []any         // a CloseReport or Burst each
	idle    chan struct{} // closed when all are handed over
	growing map[cause]*growth
	closes  ring[CloseReport]
	bursts  ring[Burst]
}

// add never waits.
func (q *reports) add(r CloseReport) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		q.tell(r)
	}
	r.Value = nil
	q.closes.add(r, 1000)
	q.grow(r)
}

// mostReports is how many may wait for a hook that does not return: some 60 MB
// with all that they refer to.
const mostReports = 100_000

// tell queues a report for the hooks. The lock is held.
func (q *reports) tell(event any) {
	if len(q.waiting) == mostReports {
		q.dropped()
		return
	}
	if len(q.waiting) == 0 {
		q.idle = make(chan struct{})
		go q.dispatch()
	}
	q.waiting = append(q.waiting, event)
}

// dispatch keeps a report in the queue until the hook has returned.
func (q *reports) dispatch() {
	for more := true; more; {
		q.mu.Lock()
		event := q.waiting[0]
		q.mu.Unlock()
		switch event := event.(type) {
		case CloseReport:
			q.closed(event)
		case Burst:
			q.burst(event)
		}
		q.mu.Lock()
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		if more = len(q.waiting) > 0; !more {
			q.waiting = nil
			close(q.idle)
		}
		q.mu.Unlock()
	}
}

// done returns a channel that is closed when all reports so far are handed over.
// It ends bursts that are growing.
func (q *reports) done() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, g := range q.growing {
		q.settle(g)
	}
	if len(q.waiting) == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	return q.idle
}

// CloseReports returns the reports of the last 1000 tunnels that have ended, in the
// order of their ends. They have no Value.
func (p *Proxy) CloseReports() []CloseReport {
	p.reports.mu.Lock()
	defer p.reports.mu.Unlock()
	return p.reports.closes.all()
}

// A ring keeps the last items that were added.
type ring[T any] struct {
	items []T
	next  int // where the oldest is, once it is full
}

func (r *ring[T]) add(item T, most int) {
	if len(r.items) < most {
		r.items = append(r.items, item)
		return
	}
	r.items[r.next] = item
	r.next = (r.next + 1) % most
}

// all returns them, the oldest first.
func (r *ring[T]) all() []T { return append(append([]T{}, r.items[r.next:]...), r.items[:r.next]...) }
