package slipswitch

import (
	"cmp"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// ActivityKinds is a set of the kinds of traffic that count as activity of a
// route: see Proxy.ActivityKinds and [Entry.LastActive]. Zero means all but
// ActivityClientBytes and ActivityUpstreamBytes.
//
// Activity belongs to a host and path, not to a route: the traffic of a tunnel
// counts for the route that stands there at the time. The first Put of a route
// always counts. A program notes activity of other kinds with [Entry.Use].
type ActivityKinds uint8

const (
	ActivityRequests         ActivityKinds = 1 << iota // a request, whatever its answer
	ActivityUploads                                    // a part of a request's body
	ActivityDownloads                                  // a part of the body of a response with a status below 300
	ActivityClientMessages                             // a message from a tunnel's client, of Route.ActivitySize or more; no ping, pong or close
	ActivityUpstreamMessages                           // the same from its upstream
	ActivityClientBytes                                // any byte from a tunnel's client, such as a browser's answer to a ping
	ActivityUpstreamBytes                              // the same from its upstream
)

const usualActivity = ActivityRequests | ActivityUploads | ActivityDownloads | ActivityClientMessages | ActivityUpstreamMessages

// counts reports whether traffic of this kind is activity.
func (p *Proxy) counts(kind ActivityKinds) bool {
	return cmp.Or(p.ActivityKinds, usualActivity)&kind != 0
}

// lastActive returns when a tunnel last carried anything that counts, or zero.
func (p *Proxy) lastActive(s splice.Stats) (last time.Time) {
	client, upstream := s.From[splice.Client], s.From[splice.Upstream]
	for _, each := range [...]struct {
		kind ActivityKinds
		at   time.Time
	}{
		{ActivityClientMessages, client.LastActive}, {ActivityClientBytes, client.LastData},
		{ActivityUpstreamMessages, upstream.LastActive}, {ActivityUpstreamBytes, upstream.LastData},
	} {
		if p.counts(each.kind) {
			last = latest(last, each.at)
		}
	}
	return last
}
