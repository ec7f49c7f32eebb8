package slipswitch

import (
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// Activity is a set of what counts as use of a route; see Proxy.Activity. Zero
// is everything but the single bytes: all but ActivityClientBytes and
// ActivityUpstreamBytes.
//
// Activity belongs to a host and path, not to a route: what a tunnel carries
// counts for the route that stands there by then. A route's first Put counts
// always, and Entry.Use counts whatever else its caller has seen.
type Activity uint8

const (
	ActivityRequests         Activity = 1 << iota // a request has come, whatever becomes of it
	ActivityUploads                               // a part of a request's body
	ActivityDownloads                             // a part of a response's body, with a status below 300
	ActivityClientMessages                        // what a tunnel's client sends, without ping, pong and close, and from Route.ActivitySize on
	ActivityUpstreamMessages                      // the same of its upstream
	ActivityClientBytes                           // every byte that a tunnel's client sends, such as a browser's answer to a ping
	ActivityUpstreamBytes                         // the same of its upstream
)

const everything = ActivityRequests | ActivityUploads | ActivityDownloads | ActivityClientMessages | ActivityUpstreamMessages

// counts reports whether something counts.
func (p *Proxy) counts(what Activity) bool {
	if p.Activity == 0 {
		return what&everything != 0
	}
	return p.Activity&what != 0
}

// lastActive is the last of what a tunnel has carried that counts, or zero.
func (p *Proxy) lastActive(s splice.Stats) (last time.Time) {
	client, upstream := s.From[splice.Client], s.From[splice.Upstream]
	for _, each := range [...]struct {
		what Activity
		at   time.Time
	}{
		{ActivityClientMessages, client.LastActive}, {ActivityClientBytes, client.LastData},
		{ActivityUpstreamMessages, upstream.LastActive}, {ActivityUpstreamBytes, upstream.LastData},
	} {
		if p.counts(each.what) {
			last = latest(last, each.at)
		}
	}
	return last
}
