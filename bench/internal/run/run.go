package run

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Run measures peers, and writes rows.
type Run struct {
	Short     bool
	Reps      int           // rounds of each case
	TimeLimit time.Duration // of all: when time is short there are fewer rounds; what comes after it is n/a
	Out       string        // file for the rows
	Only      []string      // peers; all if empty

	weight float64 // of all cases
	passed float64 // of those that are done
	began  time.Time
	rows   *writer
	shown  int // characters of the line of progress
	mu     sync.Mutex
}

// Flags adds what all runs have in common to flags.
func (r *Run) Flags(flags *flag.FlagSet, out string, limit time.Duration) {
	flags.BoolVar(&r.Short, "short", false, "each case once, and with little load: to see that all works, not for figures")
	flags.IntVar(&r.Reps, "reps", 5, "rounds of each case")
	flags.DurationVar(&r.TimeLimit, "time-limit", limit, "of the whole run: when time is short there are fewer rounds; what comes after it is n/a")
	flags.StringVar(&r.Out, "out", out, "`file` for the results, JSON lines")
	flags.Func("peers", "`names` of those to compare, with commas between (all)", func(list string) error {
		r.Only = strings.Split(list, ",")
		return nil
	})
}

// Wants returns whether a peer was asked for.
func (r *Run) Wants(peer string) bool { return len(r.Only) == 0 || slices.Contains(r.Only, peer) }

// Check returns an error if a peer was asked for that is not known.
func (r *Run) Check(known []string) error {
	for _, name := range r.Only {
		if !slices.Contains(known, name) {
			return fmt.Errorf("-peers: there is no %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	if r.Reps < 1 {
		return fmt.Errorf("-reps must be at least 1, not %d", r.Reps)
	}
	return nil
}

// Begin opens the file for the rows. The weight is the sum of what Case will be
// given, and what Progress and time limits are told by.
func (r *Run) Begin(weight float64, versions, missing map[string]string) (err error) {
	r.weight = weight
	if r.Short {
		r.Reps = 1
	}
	if r.rows, err = newWriter(r.Out); err != nil {
		return err
	}
	head := newHead()
	head.Short, head.Versions, head.Missing = r.Short, versions, missing
	r.began = time.Now()
	return r.rows.write(head)
}

// End closes the file. If the run has failed, the last one's is kept.
func (r *Run) End(err error) error {
	r.progress("")
	return errors.Join(err, r.rows.close(err == nil))
}

// A Measurement measures one peer once.
type Measurement func(ctx context.Context, peer string) (Values, Series, error)

// A Case is something that peers are compared in.
type Case struct {
	Scenario, Case string
	Weight         float64       // its share of the time
	Patience       time.Duration // with one measurement: a peer that takes longer is not measured again
	Rounds         int           // at most; 0: as many as all
	Together       bool          // all peers of a round at once: for what their load does not change
	Brief          bool          // measurements are too short to tell others' load: the rows of a round share it
	Width          int           // how many of them at a time; 0: no limit
	Peers          []string
	Measure        Measurement
}

// Case measures the peers of a case round by round: in each, one after the
// other, in an order of its own. A peer that fails gets a row that says why, and no more.
// The error is that of the context, or of writing rows.
func (r *Run) Case(ctx context.Context, c Case) error {
	from := r.passed
	r.passed += c.Weight
	deadline := r.began.Add(time.Duration(float64(r.TimeLimit) * r.passed / r.weight))
	if r.Over() {
		for _, peer := range c.Peers {
			if err := r.NA(c, peer, "no time left: -time-limit is "+r.TimeLimit.String()); err != nil {
				return err
			}
		}
		return nil
	}
	peers, random := slices.Clone(c.Peers), rand.New(rand.NewPCG(1, uint64(len(c.Scenario))))
	rounds := r.Reps
	if c.Rounds > 0 {
		rounds = min(rounds, c.Rounds)
	}
	for round := range rounds {
		if begin := time.Now(); round > 0 && begin.After(deadline) {
			break
		}
		random.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
		rows, watch := make([]Row, len(peers)), newWatch()
		var all sync.WaitGroup
		width := c.Width
		if width == 0 {
			width = len(peers)
		}
		free := make(chan struct{}, max(1, width))
		for i, peer := range peers {
			name, part := peer, (float64(round)+float64(i)/float64(len(peers)))/float64(rounds)
			if c.Together {
				name, part = strings.Join(peers, ", "), float64(round)/float64(rounds)
			}
			if i == 0 || !c.Together {
				r.weigh(from+c.Weight*part, c.name()+": "+name)
			}
			free <- struct{}{}
			all.Go(func() { rows[i] = r.measure(ctx, c, peer); <-free })
			if !c.Together {
				all.Wait()
			}
		}
		all.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		peers = peers[:0]
		shared := watch.noise()
		for _, row := range rows {
			if c.Brief || c.Together {
				row.Noise = shared
			}
			if row.Round = round; row.NA == "" {
				peers = append(peers, row.Peer)
			}
			if err := r.rows.write(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// Over reports whether the time is: Case measures nothing more, and nothing needs
// to be made ready for it.
func (r *Run) Over() bool { return time.Since(r.began) > r.TimeLimit }

func (r *Run) measure(ctx context.Context, c Case, peer string) (row Row) {
	row = Row{Scenario: c.Scenario, Case: c.Case, Peer: peer}
	patience, cancel := context.WithTimeoutCause(ctx, c.Patience, fmt.Errorf("not done after %v", c.Patience))
	defer cancel()
	if !c.Brief && !c.Together {
		watch := newWatch()
		defer func() { row.Noise = watch.noise() }()
	}
	var err error
	row.Values, row.Series, err = c.Measure(patience, peer)
	for name, value := range row.Values {
		if err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
			err = fmt.Errorf("%s: there was no time to measure anything", name)
		}
	}
	if err != nil {
		late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
		if cause := context.Cause(patience); cause != nil && late {
			err = cause
		}
		row.NA, row.Values, row.Series = brief(err.Error()), nil, nil
		r.Note("%s: %s: n/a: %s", c.name(), peer, row.NA)
	}
	return row
}

// NA writes that a peer cannot be measured in a case.
func (r *Run) NA(c Case, peer, why string) error {
	why = brief(why)
	r.Note("%s: %s: n/a: %s", c.name(), peer, why)
	return r.rows.write(Row{Scenario: c.Scenario, Case: c.Case, Peer: peer, NA: why})
}

// brief returns the first line of a text, if it is not long.
func brief(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return text
}

func (c Case) name() string { return strings.TrimSpace(c.Scenario + " " + c.Case) }

// weigh shows what is being measured, and how long the rest will take: as
// planned, or, where that is less, as long as it has taken so far.
func (r *Run) weigh(passed float64, what string) {
	took, rest := time.Since(r.began), r.weight-passed
	left := time.Duration(float64(r.TimeLimit) * rest / r.weight)
	if passed > r.weight/50 {
		left = min(left, time.Duration(float64(took)*rest/passed))
	}
	r.progress(fmt.Sprintf("%3.0f%%  %v left  %s", 100*passed/r.weight, left.Round(time.Second), what))
}

// Note prints a line on standard error.
func (r *Run) Note(format string, args ...any) {
	r.progress("")
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// progress shows a line, in place of the last one if somebody looks.
func (r *Run) progress(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !terminal() {
		if line != "" {
			fmt.Fprintln(os.Stderr, line)
		}
		return
	}
	fmt.Fprintf(os.Stderr, "\r%-*s\r%s", r.shown, "", line)
	r.shown = len(line)
}

func terminal() bool {
	info, err := os.Stderr.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
