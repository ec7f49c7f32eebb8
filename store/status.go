package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A Status is the state of a Sync.
type Status struct {
	// Name is Sync.Name, or the source's type.
	Name string `json:"name"`

	// Position is the position in the store that the router has.
	Position

	// Synced is true after the router has had all routes of the store once.
	Synced bool `json:"synced"`

	// Contact is the time of the source's last batch.
	Contact time.Time `json:"contact,omitzero"`

	// Error is why the source is out of contact now. Empty means that it is not.
	Error string `json:"error,omitempty"`

	// Routes is the number of the store's routes in the router.
	Routes int `json:"routes"`

	// Quarantined are the entries of the store that are unreadable or invalid.
	Quarantined []Quarantined `json:"quarantined,omitempty"`

	// Braked are the owners with deletions that are held back.
	Braked []Braked `json:"braked,omitempty"`
}

// A Quarantined is an entry of a store that is unreadable or invalid. The last
// valid route of its key stays, if the process has read one.
type Quarantined struct {
	Owner string         `json:"owner,omitempty"`
	Key   slipswitch.Key `json:"key"` // may be unknown
	Where string         `json:"where,omitempty"`
	Error string         `json:"error"`
	Since time.Time      `json:"since"`
}

// A Braked is an owner with deletions that are held back by the brake.
type Braked struct {
	Owner string `json:"owner"`
	Held  int    `json:"held"` // routes that the store no longer has

	Because string `json:"because"` // why the last of the deletions are held

	// First are the keys of the first ten of the held routes, in order.
	First []slipswitch.Key `json:"first"`

	Routes int       `json:"routes"` // of the owner in the router, the held ones included
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"` // when the first deletion is made, unless the route comes back
}

// A progress is the last status, and a channel that is closed when there is a new
// one.
type progress struct {
	mu      sync.Mutex
	status  Status
	changed chan struct{}
	ended   bool // there will be no new status
}

func (p *progress) set(status Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
	p.wake()
}

// end notes that there will be no new status.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.wake()
}

func (p *progress) wake() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// last returns the last status, whether it is final, and a channel that is closed
// when there is a new one.
func (p *progress) last() (status Status, ended bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.status, p.ended, p.changed
}

// tell publishes the state of the Sync as its status. The lock is held.
func (s *Sync) tell() {
	status := Status{Name: s.name(), Position: s.position, Synced: s.synced, Contact: s.contact}
	if s.lost != nil {
		status.Error = s.lost.Error()
	}
	status.Quarantined = slices.SortedFunc(maps.Values(s.bad), func(a, b Quarantined) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Key.String(), b.Key.String()))
	})
	for name, owner := range s.owners {
		status.Routes += owner.count
		if len(owner.held) == 0 {
			continue
		}
		braked := Braked{Owner: name, Held: len(owner.held), Because: owner.because, Routes: owner.count}
		for key, held := range owner.held {
			if braked.Since.IsZero() || held.at.Before(braked.Since) {
				braked.Since = held.at
			}
			braked.First = addFirst(braked.First, key)
		}
		braked.Until = braked.Since.Add(s.brakeTime())
		status.Braked = append(status.Braked, braked)
	}
	slices.SortFunc(status.Braked, func(a, b Braked) int { return cmp.Compare(a.Owner, b.Owner) })
	s.progress.set(status)
}

// count returns the number of routes in the router. The lock is held.
func (s *Sync) count() (n int) {
	for _, owner := range s.owners {
		n += owner.count
	}
	return n
}

// addFirst adds a key to a sorted list of the first ten.
func addFirst(first []slipswitch.Key, key slipswitch.Key) []slipswitch.Key {
	i, _ := slices.BinarySearchFunc(first, key, func(a, b slipswitch.Key) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Path, b.Path))
	})
	if i == 10 {
		return first
	}
	first = slices.Insert(first, i, key)
	return first[:min(len(first), 10)]
}

// Status returns the state of the Sync. It never waits.
func (s *Sync) Status() Status {
	status, _, _ := s.progress.last()
	return status
}

var errOver = fmt.Errorf("%w: the gateway no longer follows it", ErrUnavailable)

// Wait waits until the router has the store's revision, or a later one. Revision 0
// means everything that the store has at first. Quarantined entries and held deletions
// are not waited for. Wait returns the context's error if that ends before, and
// [ErrUnavailable] if Run ends before.
func (s *Sync) Wait(ctx context.Context, revision uint64) error {
	return s.wait(ctx, func(status Status) bool { return status.Revision >= revision })
}

func (s *Sync) wait(ctx context.Context, enough func(Status) bool) error {
	for {
		status, ended, changed := s.progress.last()
		switch {
		case status.Synced && enough(status):
			return nil
		case ended:
			return errOver
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// WaitAll waits until the routers of all gateways that share the store have the
// revision. If the store is no [SharedStore], it is Wait.
func (s *Sync) WaitAll(ctx context.Context, revision uint64) error {
	if shared, ok := s.Source.(SharedStore); ok {
		if err := shared.WaitAll(ctx, revision); err != nil {
			return err
		}
	}
	return s.Wait(ctx, revision)
}

// Stale returns the time since the source's last batch, or 0 if there was none.
// During contact it is less than [Heartbeat].
func (s *Sync) Stale() time.Duration {
	status := s.Status()
	if status.Contact.IsZero() {
		return 0
	}
	return time.Since(status.Contact)
}

// Handler returns a handler that answers 503 after more than MaxStale without
// contact to the source, and otherwise calls next. It can be Proxy.Middleware.
func (s *Sync) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.MaxStale > 0 && s.Stale() > s.MaxStale {
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("Retry-After", "5")
			http.Error(w, "503 Service Unavailable: the routes are out of date", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// join makes this gateway take part in WaitAll.
func (s *Sync) join(ctx context.Context, store SharedStore) {
	for ctx.Err() == nil {
		joined, cancel := context.WithCancel(ctx)
		revisions := make(chan uint64)
		var telling sync.WaitGroup
		telling.Go(func() { s.tellRevisions(joined, revisions) })
		err := store.Join(joined, s.Gateway, revisions)
		cancel()
		telling.Wait()
		if ctx.Err() == nil {
			s.log().Info("store: joining the other gateways again", "error", err)
		}
		select {
		case <-time.After(maxRetry):
		case <-ctx.Done():
		}
	}
}

// tellRevisions sends the revision of the router whenever it changes.
func (s *Sync) tellRevisions(ctx context.Context, revisions chan<- uint64) {
	told := Position{}
	for {
		status, _, changed := s.progress.last()
		out := revisions
		if !status.Synced || status.Position == told {
			out = nil
		}
		select {
		case out <- status.Revision:
			told = status.Position
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
