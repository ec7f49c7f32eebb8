package store

import (
	"context"
	"sync"
	"time"
)

// activityPeriod is how often activity is written.
const activityPeriod = time.Minute

// A knownActivity is the recent activity that the store has from any gateway. It
// keeps all gateways from writing the same use.
type knownActivity struct {
	mu sync.Mutex
	at map[record]time.Time
}

func (k *knownActivity) note(activity []LastUse, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range activity {
		if now.Sub(a.At) > 2*activityPeriod {
			continue
		}
		if k.at == nil {
			k.at = make(map[record]time.Time)
		}
		at := a.At
		if at.After(now) {
			at = now // the clock of that gateway is ahead
		}
		if id := (record{a.Owner, a.Key}); at.After(k.at[id]) {
			k.at[id] = at
		}
	}
}

// news reports whether a use is news to the store: it has none within the minute
// before.
func (k *knownActivity) news(a LastUse) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, ok := k.at[record{a.Owner, a.Key}]
	return !ok || a.At.Sub(at) >= activityPeriod
}

// forget drops times that are too old to matter.
func (k *knownActivity) forget(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, at := range k.at {
		if now.Sub(at) > 2*activityPeriod {
			delete(k.at, id)
		}
	}
}

// keepActivity writes the uses of routes to the store, once a minute.
func (s *Sync) keepActivity(ctx context.Context, store ActivityStore) {
	if s.Wait(ctx, 0) != nil {
		return
	}
	tick := time.NewTicker(activityPeriod)
	defer tick.Stop()
	for since := time.Now(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		used := s.usedSince(since)
		if len(used) > 0 {
			if err := store.Touch(ctx, used...); err != nil {
				continue // try again the next time
			}
		}
		s.known.forget(now)
		since = now
	}
}

// usedSince returns the uses of this store's routes after a time that the store
// does not know.
func (s *Sync) usedSince(since time.Time) (used []LastUse) {
	s.mu.Lock()
	names := make(map[string]string, len(s.owners)) // the store's by the router's
	for name, owner := range s.owners {
		names[owner.owner.Name] = name
	}
	s.mu.Unlock()
	for e := range s.Router.Table().All() {
		name, ours := names[e.Owner]
		if !ours {
			continue
		}
		at := e.LastActive()
		if !at.After(since) {
			continue
		}
		key, err := e.Key().Canonical()
		if err != nil {
			continue // not in a table
		}
		if a := (LastUse{name, key, at}); s.known.news(a) {
			used = append(used, a)
		}
	}
	return used
}
