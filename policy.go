package slipswitch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// A ClosePolicy says which tunnels an event closes, and how: Route.OnDelete and
// Route.OnUpstreamRemoved. The zero ClosePolicy closes none.
//
// As JSON: {"close":true,"after":"5m","window":"30s","code":1001,"reason":"…"}.
type ClosePolicy struct {
	// Close closes the tunnels. If it is false, all other fields must be zero.
	Close bool `json:"close,omitempty"`

	// After is the time between the event and the closes. A tunnel is kept if its
	// route, or its upstream, is restored within After. Zero means at once.
	After time.Duration `json:"-"`

	// Window is the time over which the closes are spread, as by [Proxy.Drain].
	// Zero means that all are closed together.
	Window time.Duration `json:"-"`

	// Code and Reason are those of the Close frames, as for [Tunnel.Close], except
	// that a Reason must have at most 123 bytes of UTF-8. Zero means the usual ones.
	Code   uint16 `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

func (c ClosePolicy) validate(field string, wrong func(field, value, want string)) {
	if !c.Close && c != (ClosePolicy{}) {
		wrong(field+".close", "false", "must be true, since other fields of the policy are set")
	}
	if c.After < 0 {
		wrong(field+".after", c.After.String(), "must not be negative")
	}
	if c.Window < 0 {
		wrong(field+".window", c.Window.String(), "must not be negative")
	}
	if !validCode(c.Code) {
		wrong(field+".code", fmt.Sprint(c.Code), wantCode)
	}
	if len(c.Reason) > maxReason || !utf8.ValidString(c.Reason) {
		wrong(field+".reason", c.Reason, "must be at most 123 bytes of UTF-8")
	}
}

// closePolicyJSON is a view of a ClosePolicy as JSON.
type closePolicyJSON struct {
	*plainClosePolicy
	After  *durationText `json:"after,omitzero"`
	Window *durationText `json:"window,omitzero"`
}

type plainClosePolicy ClosePolicy // ClosePolicy without its methods

func (c *ClosePolicy) json() *closePolicyJSON {
	return &closePolicyJSON{(*plainClosePolicy)(c), (*durationText)(&c.After), (*durationText)(&c.Window)}
}

// MarshalJSON leaves out what is zero.
func (c ClosePolicy) MarshalJSON() ([]byte, error) { return json.Marshal(c.json()) }

// UnmarshalJSON is strict, as that of Route.
func (c *ClosePolicy) UnmarshalJSON(data []byte) error {
	var read ClosePolicy
	if err := unmarshalStrict(data, read.json(), "close policy"); err != nil {
		return err
	}
	*c = read
	return nil
}

// A scheduledClose is the close of tunnels of a place by one event: their route
// was deleted, or no longer lists their upstream.
type scheduledClose struct {
	ClosePolicy
	why    Why
	at     time.Time
	change TableChange
}

// applyPolicy schedules the closes of a place's tunnels when to takes the place
// of from, or keeps them. Either may be nil; the policy of a deletion is in
// p.deletion. The place's lock is held.
func (p *place) applyPolicy(from, to *leaf, change TableChange, tunnels map[*Tunnel]struct{}) {
	if len(tunnels) == 0 || from == nil && to == nil {
		return
	}
	s := new(scheduledClose)
	switch {
	case to == nil && p.deletion != nil:
		*s = *p.deletion
	case to != nil && from != nil:
		*s = scheduledClose{ClosePolicy: to.options.OnUpstreamRemoved, why: WhyUpstreamRemoved, change: change}
	}
	s.at = time.Now().Add(s.After)
	some := false
	for t := range tunnels {
		switch {
		case to != nil && to.lists(t.listed):
			t.scheduled = nil
		case !s.Close, to != nil && !from.lists(t.listed):
			// It stays, or is closed, or scheduled, already.
		case t.scheduled == nil || s.at.Before(t.scheduled.at):
			t.scheduled = s
			some = true
		}
	}
	if some {
		time.AfterFunc(s.After, func() { p.closeScheduled(s) })
	}
}

// closeScheduled closes the tunnels for which s still is scheduled.
func (p *place) closeScheduled(s *scheduledClose) {
	due := func(t *Tunnel) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return t.scheduled == s
	}
	var tunnels []*Tunnel
	p.mu.Lock()
	for t := range p.tunnels {
		if t.scheduled == s {
			tunnels = append(tunnels, t)
		}
	}
	p.mu.Unlock()
	spread(nil, tunnels, s.Window, func(t *Tunnel) {
		if due(t) {
			t.do(func(*splice.Pair) { t.change = cmp.Or(t.change, &s.change) })
			t.close(s.why, s.Code, s.Reason)
		}
	})
}

// lists reports whether the route lists an upstream, or may: only Proxy.Resolver
// knows those of a route that it resolves.
func (l *leaf) lists(upstream string) bool {
	if l.options.Resolve {
		return true
	}
	for i := range l.upstreams.targets {
		if l.upstreams.targets[i].String() == upstream {
			return true
		}
	}
	return false
}

// listed returns a target as the route lists it: the template that made it, if
// there is one.
func (l *leaf) listed(t *target) string {
	for i := range l.upstreams.targets {
		if t.template != nil && l.upstreams.targets[i].template == t.template {
			return l.upstreams.targets[i].String()
		}
	}
	return t.String()
}
