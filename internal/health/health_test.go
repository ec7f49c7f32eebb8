package health_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch/internal/health"
)

// A world answers questions, and counts them.
type world struct {
	*health.Checker[string]
	end context.CancelFunc

	mu      sync.Mutex
	answers map[string]error
	asked   map[string]int
	asking  int
	most    int // that were asked at a time
	takes   time.Duration
	reports []string
}

func newWorld(t *testing.T) *world {
	w := &world{answers: make(map[string]error), asked: make(map[string]int)}
	life, end := context.WithCancel(t.Context())
	w.end = end
	w.Checker = health.New(life, w.ask, func(r health.Report[string]) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if r.Fell || r.Rose {
			w.reports = append(w.reports, fmt.Sprintf("%s: %v, fell %v", r.Question, r.Err, r.Fell))
		}
	})
	return w
}

func (w *world) ask(ctx context.Context, q string) error {
	w.mu.Lock()
	w.asked[q]++
	w.asking++
	w.most = max(w.most, w.asking)
	err := w.answers[q]
	takes := w.takes
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asking--
	}()
	select {
	case <-time.After(takes):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *world) say(q string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[q] = err
}

// count returns how often a question was asked since it was counted last.
func (w *world) count(q string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer delete(w.asked, q)
	return w.asked[q]
}

// A subject's questions change with its version.
type subject struct {
	mu        sync.Mutex
	version   int
	questions []string
}

func (s *subject) Plan() (health.Plan[string], bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return health.Plan[string]{Version: s.version, Questions: slices.Values(s.questions), Every: 10 * time.Second, Timeout: 2 * time.Second}, s.questions != nil
}

func (s *subject) set(questions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.questions = questions
}

func (w *world) check(s *subject) {
	s.mu.Lock()
	version := s.version
	s.mu.Unlock()
	w.Check(s, version)
	synctest.Wait()
}

func bubble(t *testing.T, test func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		test(t, w)
		w.end()
		time.Sleep(time.Minute) // all timers find that out
		synctest.Wait()
	})
}

var errIll = errors.New("ill")

// TestVerdicts: ill is what fails twice in a row, until it is well once; what was
// not asked says nothing.
func TestVerdicts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := new(subject)
		s.set("a")
		w.check(s) // the first round is at once
		if n := w.count("a"); n != 1 {
			t.Errorf("asked %d times; want once", n)
		}
		var since time.Time
		for i, step := range []struct{ says, want error }{
			{nil, nil}, {errIll, nil}, {nil, nil}, {errIll, nil}, {errIll, errIll}, {health.ErrNotAsked, errIll}, {errIll, errIll}, {nil, nil},
			{errIll, nil}, {health.ErrNotAsked, nil}, {errIll, errIll},
		} {
			w.say("a", step.says)
			time.Sleep(10*time.Second + time.Second/2) // it is due give or take a twentieth
			for w.count("a") == 0 {
				time.Sleep(time.Second / 10)
				synctest.Wait()
			}
			synctest.Wait()
			at, err := w.Verdict("a")
			if err != step.want {
				t.Errorf("step %d: got %v; want %v", i, err, step.want)
			}
			if i == 4 {
				since = at
			}
			if i == 6 && (!at.Equal(since) || at.IsZero()) {
				t.Errorf("it is ill since %v; want %v", at, since)
			}
		}
		want := []string{"a: ill, fell true", "a: <nil>, fell false", "a: ill, fell true"}
		if !slices.Equal(w.reports, want) {
			t.Errorf("reports %q; want %q", w.reports, want)
		}
		if _, err := w.Verdict("b"); err != nil {
			t.Errorf("of what is not asked: %v", err)
		}
	})
}

// TestShared: subjects share answers; of what nobody asks nothing is kept.
func TestShared(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		one, two := new(subject), new(subject)
		one.set("a", "b", "a")
		two.set("b", "c")
		w.check(one)
		w.check(two)
		w.check(two)
		time.Sleep(60 * time.Second)
		synctest.Wait()
		for _, q := range []string{"a", "b", "c"} {
			if n := w.count(q); n < 6 || n > 9 {
				t.Errorf("%s was asked %d times a minute; want about 7", q, n)
			}
		}
		if subjects, questions := w.Stats(); subjects != 2 || questions != 3 {
			t.Errorf("%d subjects have %d questions; want 2 with 3", subjects, questions)
		}
		one.set("c", "d")
		w.check(one) // at once
		if n := w.count("d"); n != 1 {
			t.Errorf("d was asked %d times; want once", n)
		}
		if _, questions := w.Stats(); questions != 3 {
			t.Errorf("there are %d questions; want b, c and d", questions)
		}
		one.set()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if subjects, questions := w.Stats(); subjects != 1 || questions != 2 {
			t.Errorf("%d subjects have %d questions; want one with 2", subjects, questions)
		}
		two.set()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if subjects, questions := w.Stats(); subjects+questions != 0 {
			t.Errorf("%d subjects have %d questions; want none", subjects, questions)
		}
	})
}

// TestAskedAtATime: no more than 64, each for no longer than its timeout, and the
// others come next.
func TestAskedAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.takes = time.Hour
		s := new(subject)
		var all []string
		for i := range 100 {
			all = append(all, fmt.Sprint(i))
		}
		s.set(all...)
		w.check(s)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if w.most != 64 {
			t.Errorf("%d were asked at a time; want 64", w.most)
		}
		for _, q := range all {
			if w.count(q) == 0 {
				t.Errorf("%s was never asked", q)
			}
		}
	})
}

// TestLife: nothing is asked after the end, and nothing reported.
func TestLife(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.say("a", errIll)
		s := new(subject)
		s.set("a")
		w.check(s)
		w.end()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.check(s)
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := w.count("a"); n != 1 || len(w.reports) > 0 {
			t.Errorf("asked %d times, reports %q; want once and none", n, w.reports)
		}
		if subjects, questions := w.Stats(); subjects+questions != 0 {
			t.Errorf("%d subjects have %d questions; want none", subjects, questions)
		}
	})
}
