// Package journal logs without waiting: a slow or stuck logger delays nothing but
// itself.
package journal

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Most is how many records may wait for the logger. Further ones are dropped and counted; the count is logged as soon as
// the logger takes records again.
const Most = 1000

// A Journal takes records in and hands them to a logger in their order, from a goroutine of its own that lives while there
// are any. Logging to it runs none of the logger's code and may be done under locks. What the logger's handler panics with
// is dropped.
type Journal struct {
	*slog.Logger // to log to

	to *slog.Logger // nil: slog.Default(), as it is when a record is handed on

	mu      sync.Mutex
	waiting []entry // the one that is being handed on included
	dropped int
	idle    chan struct{} // closed when all are handed on
}

// An entry is a record, and what With and WithGroup have said before.
type entry struct {
	record slog.Record
	with   []func(slog.Handler) slog.Handler
}

// New returns a journal for a logger; nil means slog.Default().
func New(to *slog.Logger) *Journal {
	j := &Journal{to: to}
	j.Logger = slog.New(handler{journal: j})
	return j
}

// Done returns a channel that is closed when all that was logged so far is handed on.
func (j *Journal) Done() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.waiting) == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	return j.idle
}

// add never waits.
func (j *Journal) add(e entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch len(j.waiting) {
	case Most:
		j.dropped++
		return
	case 0:
		j.idle = make(chan struct{})
		go j.write()
	}
	j.waiting = append(j.waiting, e)
}

// write hands the records on until there are none.
func (j *Journal) write() {
	for more := true; more; {
		j.mu.Lock()
		e := j.waiting[0]
		j.mu.Unlock()
		j.hand(e)
		j.mu.Lock()
		j.waiting[0] = entry{}
		j.waiting = j.waiting[1:]
		if len(j.waiting) == 0 && j.dropped > 0 {
			j.waiting = append(j.waiting, droppedEntry(j.dropped))
			j.dropped = 0
		}
		if more = len(j.waiting) > 0; !more {
			j.waiting = nil
			close(j.idle)
		}
		j.mu.Unlock()
	}
}

func droppedEntry(n int) entry {
	record := slog.NewRecord(time.Now(), slog.LevelWarn, "slipswitch: the logger has been too slow, and records were dropped", 0)
	record.AddAttrs(slog.Int("records", n))
	return entry{record: record}
}

func (j *Journal) hand(e entry) {
	defer func() { recover() }() // it would end the process
	to := j.to
	if to == nil {
		to = slog.Default()
	}
	h := to.Handler()
	for _, with := range e.with {
		h = with(h)
	}
	if h.Enabled(context.Background(), e.record.Level) {
		h.Handle(context.Background(), e.record)
	}
}

// A handler is a Journal as the slog.Handler of its Logger. Only the logger at its end knows which levels are enabled.
type handler struct {
	journal *Journal
	with    []func(slog.Handler) slog.Handler
}

func (h handler) Enabled(context.Context, slog.Level) bool { return true }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	h.journal.add(entry{r.Clone(), h.with})
	return nil
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.and(func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

func (h handler) WithGroup(name string) slog.Handler {
	return h.and(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

func (h handler) and(with func(slog.Handler) slog.Handler) slog.Handler {
	return handler{h.journal, append(slices.Clip(h.with), with)}
}
