package store

import (
	"context"
	"iter"
	"sort"
	"sync"
	"time"
)

// maxRecent is how many entries a Feed remembers.
const maxRecent = 8192

// A Feed makes watches out of writes, for stores that live in one process. The
// zero value is at position zero. Its methods may be called concurrently.
//
// It remembers the last few thousand entries. A watcher that is further behind
// gets a full batch; the others do not wait for it.
type Feed struct {
	mu       sync.Mutex
	position Position      // with all of recent
	floor    uint64        // the revision before recent
	recent   []Batch       // oldest first
	entries  int           // in recent
	changed  chan struct{} // closed when there is more, or err
	err      error
}

// Start sets the position that the store has when it is opened.
func (f *Feed) Start(p Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.position, f.floor = p, p.Revision
}

// Position returns the position of the last batch.
func (f *Feed) Position() Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.position
}

// Publish tells all watchers. Batches must come in the order of their
// revisions. A full batch is not remembered: watchers will ask for one.
func (f *Feed) Publish(b Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.position = b.Position
	f.recent = append(f.recent, b)
	f.entries += len(b.Entries) + len(b.LastUses)
	if b.Full || f.entries > maxRecent {
		f.recent, f.entries, f.floor = nil, 0, b.Revision
	}
	f.wake()
}

// Fail ends all watches with an error, including later ones, until it is called
// with nil.
func (f *Feed) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	f.wake()
}

func (f *Feed) wake() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Watch implements the Watch of a Source. full returns a full batch of the store;
// it is called without a lock.
func (f *Feed) Watch(ctx context.Context, from Position, full func() (Batch, error)) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		heartbeat := time.NewTicker(Heartbeat)
		defer heartbeat.Stop()
		for due := true; ctx.Err() == nil; {
			news, changed, err := f.after(from, full)
			if err != nil {
				yield(Batch{}, err)
				return
			}
			if len(news) == 0 && due {
				news = []Batch{{Position: from}}
			}
			for _, b := range news {
				if !yield(b, nil) {
					return
				}
				from = b.Position
			}
			if due = false; len(news) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-heartbeat.C:
				due = true
			case <-ctx.Done():
			}
		}
	}
}

// after returns the batches after a position and, if there are none, a channel
// that is closed when there are.
func (f *Feed) after(from Position, full func() (Batch, error)) ([]Batch, <-chan struct{}, error) {
	f.mu.Lock()
	if f.err != nil {
		defer f.mu.Unlock()
		return nil, nil, f.err
	}
	if from.Identity != f.position.Identity || from.Revision < f.floor || from.Revision > f.position.Revision {
		f.mu.Unlock()
		b, err := full()
		return []Batch{b}, nil, err
	}
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	i := sort.Search(len(f.recent), func(i int) bool { return f.recent[i].Revision > from.Revision })
	return f.recent[i:], f.changed, nil
}
