package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch"
)

// The brake holds back deletions that look like an accident: an emptied
// directory, a wrong prefix, a restored backup, all leases lost at once. It never
// holds additions and changes, and routes may come and go all day: it compares
// the number of routes with that of a moment ago, for each owner separately. If
// the source looks wrong, it holds all deletions of a full batch: see suspect.

const (
	brakeRoutes = 100              // an owner with fewer has no brake, unless the source looks wrong
	brakeWindow = 10 * time.Second // how long a moment ago may be
	brakeGrain  = brakeWindow / 100
)

// An owned is the state of one owner.
type owned struct {
	owner   *slipswitch.Owner
	count   int      // routes in the router, those with held deletions too
	moments []moment // of the window, oldest first
	held    map[slipswitch.Key]heldDeletion
	because string // why the last of them are held
}

// A moment is one grain of the window: a table that changes all day has thousands
// of changes in it.
type moment struct {
	at   time.Time // of its first change
	most int       // greatest number of routes before one of its changes
}

type heldDeletion struct {
	at       time.Time
	revision uint64 // of the store, at which the route was gone
}

func (o *owned) clone() *owned {
	c := *o
	c.moments, c.held = slices.Clone(o.moments), maps.Clone(o.held)
	return &c
}

// brake gets the owner's routes that a plan would delete, with the revisions of
// their deletions, and holds them back or not. It returns the routes that the
// plan must delete besides its own deletions: the missing routes of a full plan
// that are not held, and routes that are released now.
func (o *owned) brake(gone map[slipswitch.Key]uint64, p plan, hold time.Duration) (remove []slipswitch.Key) {
	absent := make(map[slipswitch.Key]uint64, len(gone)) // of them, those not held yet
	for key, revision := range gone {
		if _, held := o.held[key]; held {
			continue
		}
		if revision <= p.confirmed {
			remove = append(remove, key)
		} else {
			absent[key] = revision
		}
	}
	for key, held := range o.held {
		revision, still := gone[key]
		switch {
		case p.full && !still: // it is there again
			delete(o.held, key)
		case held.revision <= p.confirmed, p.full && p.now.Sub(held.at) >= hold:
			delete(o.held, key)
			remove = append(remove, key)
		case p.full && revision < held.revision: // the store has gone back
			o.held[key] = heldDeletion{held.at, revision}
		}
	}
	if len(remove) > 0 {
		o.moments = nil // the deletions before were meant, too
	}
	count := o.count - len(remove)
	most := o.most(p.now, count)
	lost := most - count + len(absent)
	switch {
	case len(absent) == 0:
	case hold >= 0 && (len(o.held) > 0 || p.suspicion != "" || most >= brakeRoutes && 2*lost > most):
		o.because = cmp.Or(p.suspicion, fmt.Sprintf("%d of %d routes would be gone", lost+len(o.held), most))
		if o.held == nil {
			o.held = make(map[slipswitch.Key]heldDeletion)
		}
		for key, revision := range absent {
			o.held[key] = heldDeletion{p.now, revision}
		}
	case p.full:
		remove = slices.AppendSeq(remove, maps.Keys(absent))
	}
	return remove
}

// most returns the greatest number of routes within the window, with count now.
func (o *owned) most(now time.Time, count int) int {
	o.moments = slices.DeleteFunc(o.moments, func(m moment) bool { return now.Sub(m.at) >= brakeWindow+brakeGrain })
	if n := len(o.moments); n == 0 || now.Sub(o.moments[n-1].at) >= brakeGrain {
		o.moments = append(o.moments, moment{now, count})
	} else {
		o.moments[n-1].most = max(o.moments[n-1].most, count)
	}
	return slices.MaxFunc(o.moments, func(a, b moment) int { return cmp.Compare(a.most, b.most) }).most
}

// emptied is a suspicion that is dropped if Apply deletes the last routes.
const emptied = "the source is empty"

// suspect returns why the routes missing from a full batch may be missing by
// accident, however few. Empty means that they are meant to be. The lock is held.
func (s *Sync) suspect(b Batch) string {
	switch {
	case !s.synced:
		return ""
	case b.Identity != s.position.Identity:
		return fmt.Sprintf("the source is another one: %.40q instead of %.40q", b.Identity, s.position.Identity)
	case b.Revision < s.position.Revision:
		return fmt.Sprintf("the source has gone back from revision %d to %d", s.position.Revision, b.Revision)
	case !slices.ContainsFunc(b.Entries, func(e Entry) bool { return e.Route != nil || e.Err != nil }):
		return emptied
	}
	return ""
}

// mean notes that the deletions among changes are intended, until undo is called.
func (s *Sync) mean(owner string, changes []slipswitch.Change) (undo func()) {
	keys, _ := Keys(changes) // they have been checked
	count := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, key := range keys {
			if changes[i].Delete == nil {
				continue
			}
			if s.meant == nil {
				s.meant = make(map[record]int)
			}
			id := record{owner, key}
			if s.meant[id] += n; s.meant[id] == 0 {
				delete(s.meant, id)
			}
		}
	}
	count(1)
	return func() { count(-1) }
}

// means reports whether Apply is making all these deletions. The lock is held.
func (s *Sync) means(gone absences) bool {
	for owner, keys := range gone {
		for key := range keys {
			if s.meant[record{owner, key}] == 0 {
				return false
			}
		}
	}
	return true
}

func (s *Sync) brakeTime() time.Duration {
	if s.BrakeTime == 0 {
		return 5 * time.Minute
	}
	return s.BrakeTime
}

// oldestHeld returns the time of the oldest held deletion, or zero. The lock is
// held.
func (s *Sync) oldestHeld() (oldest time.Time) {
	for _, owner := range s.owners {
		for _, held := range owner.held {
			if oldest.IsZero() || held.at.Before(oldest) {
				oldest = held.at
			}
		}
	}
	return oldest
}

// repeat reports whether the source must be read again because of held deletions.
// The lock is held.
func (s *Sync) repeat(now time.Time) bool {
	oldest := s.oldestHeld()
	return !oldest.IsZero() && now.Sub(oldest) >= s.brakeTime()
}

// repeatTimer returns a channel that fires when repeat becomes true.
func (s *Sync) repeatTimer() (due <-chan time.Time, stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := s.oldestHeld()
	if oldest.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(time.Until(oldest.Add(s.brakeTime())))
	return timer.C, func() { timer.Stop() }
}

// Confirm makes all deletions that the brake holds now, on this gateway and on all
// others that share the store. After an error nothing was done: the others could
// not be told, or the router has refused.
func (s *Sync) Confirm(ctx context.Context) error {
	s.mu.Lock()
	revision := s.position.Revision // what comes while the others are told is not meant
	for _, owner := range s.owners {
		for _, held := range owner.held {
			revision = max(revision, held.revision)
		}
	}
	s.mu.Unlock()
	if shared, ok := s.Source.(SharedStore); ok {
		if err := shared.Confirm(ctx, revision); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.change(plan{confirmed: revision, position: s.position, now: time.Now()}); err != nil {
		return err
	}
	s.tell()
	return nil
}

// heldOf returns ErrHeld if the brake holds deletions among the changes.
func (s *Sync) heldOf(owner string, changes []slipswitch.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, n := s.owners[owner], 0
	if o == nil || len(o.held) == 0 {
		return nil
	}
	keys, err := Keys(changes)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if _, held := o.held[key]; held {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d routes stay until that is confirmed, or for %v", ErrHeld, n, s.brakeTime())
}
