package slipswitch

import (
	"cmp"
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
	"github.com/slipswitch/slipswitch/internal/http1"
)

// A Check is the health check of a route's upstreams. The Proxy sends a GET to
// each of them periodically; a status from 200 to 399 passes. The zero Check
// checks nothing.
//
// An upstream that fails twice in a row is ejected until it passes again. If all
// are ejected, all are tried. Tunnels to an ejected upstream stay open. A check
// does not count as activity.
//
// A route is checked if it has several upstreams and none of them is a template.
// Its checks begin with the first request that the Proxy gets for it. They end
// when the route is deleted or the Proxy is shut down. Routes with the same check
// of the same address share the result.
//
// As JSON: {"path":"/healthz","every":"10s","timeout":"5s"}.
type Check struct {
	// Path is requested after the path of the upstream's URL, with the route's
	// UpstreamHost. It may have a query. Empty means no check; all other fields must
	// then be zero.
	Path string `json:"path"`

	// Every is the time between two checks, give or take a twentieth: from 1 s to
	// 24 h. At most 64 checks run at a time; others start late. Zero means 10 s.
	Every time.Duration `json:"-"`

	// Timeout bounds one check, up to the header of the response. Zero means 5 s.
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
		wrong("check.path", c.Path, "must be a path such as /healthz, since other fields of check are set")
	case err != nil:
		wrong("check.path", c.Path, err.Error())
	case scan.Dotted || strings.HasPrefix(path, "//") || canon.CheckQuery(query) != nil:
		wrong("check.path", c.Path, "must not begin with //, and must have no dot segments, spaces or control bytes")
	}
	if c.Every != 0 && (c.Every < minEvery || c.Every > maxEvery) {
		wrong("check.every", c.Every.String(), "must be from 1s to 24h")
	}
	if c.Timeout < 0 {
		wrong("check.timeout", c.Timeout.String(), "must not be negative")
	}
	for _, u := range r.Upstreams {
		if strings.Contains(u.URL, "{") {
			wrong("check", c.Path, "must be left out if an upstream is a template: only fixed upstreams are checked")
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

// A question identifies a check: routes whose questions are equal share its result.
type question struct {
	scheme                    scheme
	addr, profile, host, path string
}

func (r *Route) question(t *target) question {
	return question{t.scheme, t.addr, t.key(r.TLSProfile).Profile, r.UpstreamHost, t.path + r.Check.Path}
}

func (l *leaf) isChecked() bool { return l.options.Check.Path != "" && len(l.upstreams.targets) > 1 }

// Plan returns the checks of the route at this place: a place is a health.Subject.
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

// verdict returns since when and why an upstream fails its route's checks. A nil
// error means that it passes.
func (p *Proxy) verdict(r *Route, t *target) (since time.Time, err error) {
	if r.Check.Path == "" {
		return time.Time{}, nil
	}
	return p.checker.Verdict(r.question(t))
}

// checked applies the result of a check: a passed one ends an ejection.
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

// ask makes one check, and returns why it failed.
func (p *Proxy) ask(ctx context.Context, q question) error {
	defer func() {
		if p.life.Err() != nil {
			p.closeIdle() // Shutdown may have done so before the connection was idle
		}
	}()
	path, query, asks := strings.Cut(q.path, "?")
	t := q.target()
	a, err := p.transports.roundTrip(ctx, t, q.profile, &http1.Request{
		Method: http.MethodGet, Path: path, RawQuery: query, ForceQuery: asks,
		Host: cmp.Or(q.host, t.authority()), Header: http.Header{"User-Agent": {"slipswitch"}},
	})
	if _, ours := errors.AsType[*Error](err); ours {
		return health.ErrNotAsked // our own limits stopped it
	}
	if err != nil {
		return err
	}
	defer a.body.Close()
	if a.status < 200 || a.status > 399 {
		err = fmt.Errorf("status %d", a.status)
	}
	io.CopyN(io.Discard, a.body, 4<<10) // a short body is read to its end: the connection can be reused
	return err
}

// An Ejection says why one of several upstreams is ejected now.
type Ejection struct {
	Upstream string    `json:"upstream"` // its URL, without path
	Since    time.Time `json:"since"`    // the first of its failures in a row
	Error    string    `json:"error"`    // the last of them
}

// Ejections returns the upstreams of a route that this Proxy ejects now, in the
// route's order: those that could not be reached, and those that fail the route's
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
