package slipswitch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// A Check asks each upstream of a route again and again whether it is well: by
// GET, to which a status from 200 to 399 is the right answer. Its zero value
// asks nothing.
//
// One that has failed twice in a row is passed over until it passes again, as
// one that cannot be reached is; where all are, all are tried. Tunnels to it
// stay, and a check is no activity. Only what leads to several fixed upstreams
// is checked, as there is no choice otherwise: from the first request on that
// the Proxy gets for it, until the route is deleted or the Proxy shut down.
// Routes that would ask the same of the same address share the answer.
//
// As JSON: {"path":"/healthz","every":"10s","timeout":"5s"}.
type Check struct {
	// Path, which may have a query, is asked for, behind the upstream's own path
	// and with the route's UpstreamHost. Empty: no check.
	Path string `json:"path"`

	// Every is the time between two checks, give or take a twentieth: from 1 s to
	// 24 h. At most 64 are made at a time, and the others are late. Zero: 10 s.
	Every time.Duration `json:"-"`

	// Timeout bounds one check, up to the header of its answer. Zero: 5 s.
	Timeout time.Duration `json:"-"`
}

const (
	minEvery    = time.Second
	maxEvery    = 24 * time.Hour
	maxChecking = 64
	fall        = 2 // failures in a row
)

func (c Check) every() time.Duration {
	if c.Every > 0 {
		return c.Every
	}
	return 10 * time.Second
}

func (c Check) timeout() time.Duration {
	if c.Timeout > 0 {
		return c.Timeout
	}
	return 5 * time.Second
}

func (c Check) validate(r *Route, wrong func(field, value, want string)) {
	if c == (Check{}) {
		return
	}
	path, query, _ := strings.Cut(c.Path, "?")
	scan, err := canon.ScanPath(path)
	switch {
	case path == "":
		wrong("check.path", c.Path, "must be a path such as /healthz, or else nothing more be said")
	case err != nil:
		wrong("check.path", c.Path, err.Error())
	case scan.Dotted || strings.HasPrefix(path, "//") || canon.CheckQuery(query) != nil:
		wrong("check.path", c.Path, "must be a path without // in front, dot segments, spaces and control bytes")
	}
	if c.Every != 0 && (c.Every < minEvery || c.Every > maxEvery) {
		wrong("check.every", c.Every.String(), "must be from 1s to 24h")
	}
	if c.Timeout < 0 {
		wrong("check.timeout", c.Timeout.String(), "must not be negative")
	}
	for _, u := range r.Upstreams {
		if strings.Contains(u.URL, "{") {
			wrong("check", c.Path, "must not be set where an upstream is a template: only fixed ones are checked")
			break
		}
	}
}

// checkJSON is a view of a Check as JSON.
type checkJSON struct {
	*plainCheck
	Every   *durationText `json:"every,omitzero"`
	Timeout *durationText `json:"timeout,omitzero"`
}

type plainCheck Check // Check without its methods

func (c *Check) json() *checkJSON {
	return &checkJSON{(*plainCheck)(c), (*durationText)(&c.Every), (*durationText)(&c.Timeout)}
}

// MarshalJSON leaves out what is zero.
func (c Check) MarshalJSON() ([]byte, error) { return json.Marshal(c.json()) }

// UnmarshalJSON is strict, as that of Route.
func (c *Check) UnmarshalJSON(data []byte) error {
	var read Check
	if err := unmarshalStrict(data, read.json(), "check"); err != nil {
		return err
	}
	*c = read
	return nil
}

// A checker has the upstreams of a place checked, as long as the route that
// stands there asks for it. It is a timer, and no goroutine. All its fields, and
// those of probes, are under the picker's lock.
type checker struct {
	proxy  *Proxy
	place  *place
	leaf   *leaf // whose probes these are; nil: none yet
	probes []*probe
	timer  *time.Timer
}

// A probe is one question to one address.
type probe struct {
	target  target
	routes  int // that ask it
	begun   time.Time
	running bool

	failures int // in a row
	since    time.Time
	err      error // of the last
}

// A probeKey is what two routes must have in common to share a probe.
type probeKey struct {
	poolKey
	addr, host, path string
}

func (r *Route) probeKey(t *target) probeKey {
	return probeKey{t.poolKey(r.TLSProfile), t.addr, r.UpstreamHost, t.path + r.Check.Path}
}

func (l *leaf) isChecked() bool { return l.options.Check.Path != "" && len(l.upstreams.targets) > 1 }

// watch has a leaf's upstreams checked, if its route asks for that. The lock is
// held.
func (p *picker) watch(l *leaf) {
	if !l.isChecked() || p.proxy.life.Err() != nil {
		return
	}
	switch c := p.checkers[l.place]; {
	case c == nil:
		c = &checker{proxy: p.proxy, place: l.place}
		c.timer = time.AfterFunc(0, c.turn)
		if p.checkers == nil {
			p.checkers, p.probes = make(map[*place]*checker), make(map[probeKey]*probe)
		}
		p.checkers[l.place] = c
	case c.leaf != l:
		c.timer.Reset(0)
	}
}

// turn begins the checks that are due, and sets the time of the next turn.
func (c *checker) turn() {
	p := &c.proxy.picker
	p.mu.Lock()
	defer p.mu.Unlock()
	l := c.place.leaf.Load()
	if c.proxy.life.Err() != nil || l == nil || !l.isChecked() {
		c.ask(nil)
		delete(p.checkers, c.place)
		return
	}
	if l != c.leaf {
		c.ask(l)
	}
	check := l.options.Check
	every := check.every()
	next := every - every/20 + rand.N(every/10)
	for i, b := range c.probes {
		if b.running || time.Since(b.begun) < every/10*9 { // maybe for another route
			continue
		}
		key := l.options.probeKey(&l.upstreams.targets[i])
		if !p.checking.TryGo(func() error { c.proxy.check(b, key, check.timeout()); return nil }) {
			next = rand.N(minEvery)
			continue
		}
		b.running, b.begun = true, time.Now()
	}
	c.timer.Reset(next)
}

// ask takes a leaf's probes in place of those that it had; with nil, none. The
// lock is held.
func (c *checker) ask(l *leaf) {
	p := &c.proxy.picker
	before, probes := c.leaf, c.probes
	c.leaf, c.probes = l, nil
	for i := range targetsOf(l) {
		k := l.options.probeKey(&l.upstreams.targets[i])
		b := p.probes[k]
		if b == nil {
			b = &probe{target: l.upstreams.targets[i]}
			p.probes[k] = b
		}
		b.routes++
		c.probes = append(c.probes, b)
	}
	for i, b := range probes {
		if b.routes--; b.routes == 0 {
			delete(p.probes, before.options.probeKey(&before.upstreams.targets[i]))
		}
	}
}

func targetsOf(l *leaf) []target {
	if l == nil {
		return nil
	}
	return l.upstreams.targets
}

// check makes one check, and notes how it went.
func (p *Proxy) check(b *probe, k probeKey, timeout time.Duration) {
	err := p.askUpstream(&b.target, k, timeout)
	if p.life.Err() != nil {
		p.closeIdle() // Shutdown may have done so before the connection was idle
	}
	p.picker.mu.Lock()
	defer p.picker.mu.Unlock()
	b.running = false
	if _, ours := errors.AsType[*Error](err); ours || p.life.Err() != nil {
		return // our own limits, or our own end
	}
	fell := b.failures >= fall
	if b.err = err; err == nil {
		b.failures, b.since = 0, time.Time{}
		p.picker.reached(&b.target)
	} else if b.failures++; b.failures == 1 {
		b.since = time.Now()
	}
	switch is := b.failures >= fall; {
	case is && !fell:
		p.log().Warn("slipswitch: an upstream fails its checks", "upstream", b.target.String(), "path", k.path, "error", err)
	case fell && !is:
		p.log().Info("slipswitch: an upstream passes its check again", "upstream", b.target.String(), "path", k.path)
	}
}

// askUpstream returns why a check fails.
func (p *Proxy) askUpstream(t *target, k probeKey, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(p.life, timeout)
	defer cancel()
	path, query, asks := strings.Cut(k.path, "?")
	request := (&http.Request{Method: http.MethodGet, URL: t.url(path, query, asks), Host: k.host,
		Header: http.Header{"User-Agent": {"slipswitch"}}}).WithContext(p.dialer.Context(ctx, timeout, nil))
	response, err := p.transports.roundTrip(t, k.profile, request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	io.CopyN(io.Discard, response.Body, 4<<10) // a short one, so that the connection can be used again
	return err
}

// An Ejection is why an upstream is passed over now, where there is another.
type Ejection struct {
	Upstream string    `json:"upstream"` // its URL, without path
	Since    time.Time `json:"since"`    // its first failure in a row
	Error    string    `json:"error"`    // the last one
}

// Ejections returns which upstreams of a route are passed over, in its order: by
// this Proxy, since they could not be reached just now or fail the route's
// Check.
func (p *Proxy) Ejections(e Entry) (ejections []Ejection) {
	targets := e.leaf.upstreams.targets
	if len(targets) < 2 {
		return nil
	}
	p.picker.mu.Lock()
	defer p.picker.mu.Unlock()
	for i := range targets {
		if since, err := p.picker.ejection(e.leaf, &targets[i], time.Now()); err != nil {
			ejections = append(ejections, Ejection{targets[i].String(), since, err.Error()})
		}
	}
	return ejections
}
