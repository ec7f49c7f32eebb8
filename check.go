package slipswitch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/health"
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
	minEvery = time.Second
	maxEvery = 24 * time.Hour
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

// A question is what two routes must have in common to share its answer.
type question struct {
	poolKey
	addr, host, path string
}

func (r *Route) question(t *target) question {
	return question{t.poolKey(r.TLSProfile), t.addr, r.UpstreamHost, t.path + r.Check.Path}
}

func (l *leaf) isChecked() bool { return l.options.Check.Path != "" && len(l.upstreams.targets) > 1 }

// Plan has the upstreams of the route checked that stands here: a place is the
// health.Subject.
func (p *place) Plan() (plan health.Plan[question], ok bool) {
	l := p.leaf.Load()
	if l == nil || !l.isChecked() {
		return plan, false
	}
	check := l.options.Check
	return health.Plan[question]{Version: l, Questions: l.questions, Every: check.every(), Timeout: check.timeout()}, true
}

func (l *leaf) questions(yield func(question) bool) {
	for i := range l.upstreams.targets {
		if !yield(l.options.question(&l.upstreams.targets[i])) {
			return
		}
	}
}

// verdict returns since when and why an upstream fails its route's checks; a nil
// error if it does not.
func (p *Proxy) verdict(r *Route, t *target) (since time.Time, err error) {
	if r.Check.Path == "" {
		return time.Time{}, nil
	}
	return p.checker.Verdict(r.question(t))
}

// checked notes what has come of a check.
func (p *Proxy) checked(r health.Report[question]) {
	t := r.Question.target()
	if r.Err == nil {
		p.balancer.Reached(t.address())
	}
	switch {
	case r.Fell:
		p.log().Warn("slipswitch: an upstream fails its checks", "upstream", t.String(), "path", r.Question.path, "error", r.Err)
	case r.Rose:
		p.log().Info("slipswitch: an upstream passes its check again", "upstream", t.String(), "path", r.Question.path)
	}
}

func (q question) target() *target { return &target{scheme: q.scheme, addr: q.addr} }

// ask returns why a check fails.
func (p *Proxy) ask(ctx context.Context, q question) error {
	defer func() {
		if p.life.Err() != nil {
			p.closeIdle() // Shutdown may have done so before the connection was idle
		}
	}()
	deadline, _ := ctx.Deadline()
	path, query, asks := strings.Cut(q.path, "?")
	t := q.target()
	request := (&http.Request{Method: http.MethodGet, URL: t.url(path, query, asks), Host: q.host,
		Header: http.Header{"User-Agent": {"slipswitch"}}}).WithContext(p.dialer.Context(ctx, time.Until(deadline), nil))
	response, err := p.transports.roundTrip(t, q.profile, request)
	if _, ours := errors.AsType[*Error](err); ours {
		return health.ErrNotAsked // but held up by our own limits
	}
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
	p.start.Do(p.init)
	targets := e.leaf.upstreams.targets
	if len(targets) < 2 {
		return nil
	}
	for i := range targets {
		t := &targets[i]
		since, err := p.verdict(&e.leaf.options.Route, t)
		if err == nil {
			since, err = p.balancer.Ejection(t.address())
		}
		if err != nil {
			ejections = append(ejections, Ejection{t.String(), since, err.Error()})
		}
	}
	return ejections
}
