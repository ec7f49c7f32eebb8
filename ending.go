package slipswitch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// An Ending is what becomes of tunnels after an event. Its zero value keeps
// them until they end by themselves.
//
// As JSON: {"close":true,"after":"5m","window":"30s","code":1001,"reason":"…"}.
type Ending struct {
	// Close ends them. False: they stay, and all other fields must be zero.
	Close bool `json:"close,omitempty"`

	// After is how long after the event. What is back by then, as if the event
	// had not been, is not ended. Zero: at once.
	After time.Duration `json:"-"`

	// Window is over how long the ends are spread, evenly, if they are so many
	// that there are ten in a second. Zero: they end together.
	Window time.Duration `json:"-"`

	// Code is the WebSocket close code that both sides are sent: 1000 to 1003,
	// 1007 to 1014, or 3000 to 4999. Zero: 1001, or 1012 if the route has moved
	// to other upstreams.
	Code uint16 `json:"code,omitempty"`

	// Reason goes with the code: at most 123 bytes of UTF-8. Empty: what the
	// close report has in Why.
	Reason string `json:"reason,omitempty"`
}

// maxReason is how long a close reason may be, in bytes (RFC 6455 §5.5).
const maxReason = 123

// validCode reports whether a close code may be sent (RFC 6455 §7.4).
func validCode(code uint16) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}

const wantCode = "must be a close code that may be sent: 1000 to 1003, 1007 to 1014, or 3000 to 4999"

func (e Ending) validate(field string, wrong func(field, value, want string)) {
	if !e.Close && e != (Ending{}) {
		wrong(field+".close", "false", "must be true, or else nothing more be said")
	}
	if e.After < 0 {
		wrong(field+".after", e.After.String(), "must not be negative")
	}
	if e.Window < 0 {
		wrong(field+".window", e.Window.String(), "must not be negative")
	}
	if e.Code != 0 && !validCode(e.Code) {
		wrong(field+".code", fmt.Sprint(e.Code), wantCode)
	}
	if len(e.Reason) > maxReason || !utf8.ValidString(e.Reason) {
		wrong(field+".reason", e.Reason, "must be at most 123 bytes of UTF-8")
	}
}

// endingJSON is a view of an Ending as JSON.
type endingJSON struct {
	*plainEnding
	After  *durationText `json:"after,omitzero"`
	Window *durationText `json:"window,omitzero"`
}

type plainEnding Ending // Ending without its methods

func (e *Ending) json() *endingJSON {
	return &endingJSON{(*plainEnding)(e), (*durationText)(&e.After), (*durationText)(&e.Window)}
}

// MarshalJSON leaves out what is zero.
func (e Ending) MarshalJSON() ([]byte, error) { return json.Marshal(e.json()) }

// UnmarshalJSON is strict, as that of Route.
func (e *Ending) UnmarshalJSON(data []byte) error {
	var read Ending
	if err := unmarshalStrict(data, read.json(), "ending"); err != nil {
		return err
	}
	*e = read
	return nil
}

// A departure is one event that ends tunnels of a place: its route was deleted,
// or lists their upstream no more.
type departure struct {
	Ending
	why    Why
	at     time.Time
	change TableChange
}

// departs applies what the routes say to the tunnels of a place when to takes
// the place of from, either of which may be nil, by a change; that of a deletion
// is known already. The place's lock is held.
func (p *place) departs(from, to *leaf, change TableChange, tunnels map[*Tunnel]struct{}) {
	if len(tunnels) == 0 || from == nil && to == nil {
		return
	}
	d := new(departure)
	switch {
	case to == nil && p.deletion != nil:
		*d = *p.deletion
	case to != nil && from != nil:
		*d = departure{Ending: to.options.OnUpstreamRemoved, why: WhyUpstreamRemoved, change: change}
	}
	d.at = time.Now().Add(d.After)
	some := false
	for t := range tunnels {
		switch {
		case to != nil && to.leadsTo(t):
			t.departure = nil
		case !d.Close, to != nil && !from.leadsTo(t):
			// It stays, or its time has come or been set before.
		case t.departure == nil || d.at.Before(t.departure.at):
			t.departure = d
			some = true
		}
	}
	if some {
		time.AfterFunc(d.After, func() { p.depart(d) })
	}
}

// depart ends the tunnels that still have this departure.
func (p *place) depart(d *departure) {
	departs := func(t *Tunnel) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return t.departure == d
	}
	var tunnels []*Tunnel
	p.mu.Lock()
	for t := range p.tunnels {
		if t.departure == d {
			tunnels = append(tunnels, t)
		}
	}
	p.mu.Unlock()
	spread(nil, tunnels, d.Window, func(t *Tunnel) {
		if departs(t) {
			t.do(func(*splice.Pair) { t.change = cmp.Or(t.change, &d.change) })
			t.end(d.why, d.Code, d.Reason)
		}
	})
}

// leadsTo reports whether the route lists the upstream that the tunnel leads to,
// or may: only Proxy.Resolver knows those of a route to be resolved.
func (l *leaf) leadsTo(t *Tunnel) bool {
	if l.options.Resolve {
		return true
	}
	for i := range l.upstreams.targets {
		if l.upstreams.targets[i].String() == t.listed {
			return true
		}
	}
	return false
}

// lists returns how the route lists a target: as a template, if it is one's.
func (l *leaf) lists(t *target) string {
	for i := range l.upstreams.targets {
		if t.template != nil && l.upstreams.targets[i].template == t.template {
			return l.upstreams.targets[i].String()
		}
	}
	return t.String()
}
