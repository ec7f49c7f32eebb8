// Package health checks periodically whether upstreams are healthy. The caller
// says what to check and how, and gets verdicts: the package knows neither routes
// nor HTTP.
//
// Subjects with the same question share the answer. Each subject has a timer, and
// no goroutine. A question has a goroutine while it is being asked.
package health

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Subject wants to know how the upstreams that it leads to are.
type Subject[Q comparable] interface {
	// Plan returns what is to be asked now; false: nothing, from now on. It must not
	// block.
	Plan() (Plan[Q], bool)
}

// A Plan is what is asked for a subject, and when.
type Plan[Q comparable] struct {
	Version   any // plans of one version have the same questions
	Questions iter.Seq[Q]
	Every     time.Duration
	Timeout   time.Duration
}

// ErrNotAsked is the error of a question that was not asked, and so says nothing.
var ErrNotAsked = errors.New("not asked")

const (
	maxAsking = 64 // questions at a time
	late      = time.Second
	fall      = 2 // failures in a row
)

// A Checker asks the questions of its subjects. Its methods may be called
// concurrently.
type Checker[Q comparable] struct {
	life   context.Context
	ask    func(ctx context.Context, q Q) error
	report func(Report[Q])
	asking errgroup.Group

	mu       sync.Mutex
	subjects map[Subject[Q]]*subject[Q]
	probes   map[Q]*probe
}

// A Report is how the asking of a question went.
type Report[Q comparable] struct {
	Question Q
	Err      error // of this time; nil: it is well
	Fell     bool  // from now on it is ill: it has failed twice in a row
	Rose     bool  // it was ill, and is well again
}

// New returns a Checker that asks by ask, with a context that ends after the plan's
// Timeout, as long as life has not ended. What came of it is reported, by several
// goroutines at the same time, unless it is ErrNotAsked.
func New[Q comparable](life context.Context, ask func(ctx context.Context, q Q) error, report func(Report[Q])) *Checker[Q] {
	c := &Checker[Q]{life: life, ask: ask, report: report,
		subjects: make(map[Subject[Q]]*subject[Q]), probes: make(map[Q]*probe)}
	c.asking.SetLimit(maxAsking)
	return c
}

// A subject is one that is known. All its fields, and those of probes, are under the
// Checker's lock.
type subject[Q comparable] struct {
	Subject[Q]
	version   any // of the plan that these are the questions of
	questions []Q
	timer     *time.Timer
}

// A probe is one question, for all subjects that have it.
type probe struct {
	subjects int
	begun    time.Time
	running  bool

	failures int // in a row
	since    time.Time
	err      error // of the last
}

func (b *probe) ill() bool { return b.failures >= fall }

// Check has the questions of a subject asked until it has no plan any more. It is
// cheap if the subject has a plan of that version already.
func (c *Checker[Q]) Check(s Subject[Q], version any) {
	if c.life.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch known := c.subjects[s]; {
	case known == nil:
		known = &subject[Q]{Subject: s}
		known.timer = time.AfterFunc(0, func() { c.round(known) })
		c.subjects[s] = known
	case known.version != version:
		known.timer.Reset(0)
	}
}

// round asks the questions that are due, and sets the time of the next round.
func (c *Checker[Q]) round(s *subject[Q]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	plan, ok := s.Plan()
	if !ok || c.life.Err() != nil {
		c.adopt(s, Plan[Q]{})
		delete(c.subjects, s.Subject)
		return
	}
	if plan.Version != s.version {
		c.adopt(s, plan)
	}
	next := plan.Every - plan.Every/20 + rand.N(plan.Every/10)
	for _, q := range s.questions {
		b := c.probes[q]
		if b.running || time.Since(b.begun) < plan.Every/10*9 { // maybe for another subject
			continue
		}
		if !c.asking.TryGo(func() error { c.probe(q, b, plan.Timeout); return nil }) {
			next = rand.N(late)
			continue
		}
		b.running, b.begun = true, time.Now()
	}
	s.timer.Reset(next)
}

// adopt gives a subject the questions of a plan in place of those that it had. The
// lock is held.
func (c *Checker[Q]) adopt(s *subject[Q], plan Plan[Q]) {
	before := s.questions
	s.version, s.questions = plan.Version, nil
	if plan.Questions != nil {
		for q := range plan.Questions {
			b := c.probes[q]
			if b == nil {
				b = new(probe)
				c.probes[q] = b
			}
			b.subjects++
			s.questions = append(s.questions, q)
		}
	}
	for _, q := range before {
		b := c.probes[q]
		if b.subjects--; b.subjects == 0 {
			delete(c.probes, q)
		}
	}
}

// probe asks a question, and notes how it went.
func (c *Checker[Q]) probe(q Q, b *probe, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(c.life, timeout)
	defer cancel()
	err := c.ask(ctx, q)
	if report, ok := c.note(q, b, err); ok {
		c.report(report)
	}
}

func (c *Checker[Q]) note(q Q, b *probe, err error) (report Report[Q], ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.running = false
	if errors.Is(err, ErrNotAsked) || c.life.Err() != nil {
		return report, false
	}
	was := b.ill()
	if b.err = err; err == nil {
		b.failures, b.since = 0, time.Time{}
	} else if b.failures++; b.failures == 1 {
		b.since = time.Now()
	}
	return Report[Q]{q, err, b.ill() && !was, was && !b.ill()}, true
}

// Verdict returns since when and why the answer to a question is that the upstream
// is ill; a nil error if it is well, or not known to be ill.
func (c *Checker[Q]) Verdict(q Q) (since time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.probes[q]; b != nil && b.ill() {
		return b.since, b.err
	}
	return time.Time{}, nil
}

// Stats returns how many subjects there are, and how many questions they have.
func (c *Checker[Q]) Stats() (subjects, questions int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.subjects), len(c.probes)
}
