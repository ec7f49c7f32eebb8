package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/internal/journal"
)

// How a Sync works:
//
//	follow the source from the last position; on any error wait a little and follow it again
//	  take the batches that have arrived, and drop those before a full one
//	  list the puts and deletions: a full batch deletes every route that it does not have
//	  brake: if that deletes more than half of an owner's routes, hold those deletions back
//	  change the router in one batch; if it refuses routes, quarantine them and try again
//	  note the revision, and wake its waiters
//	  once a held deletion is old enough, follow from the start: if the full batch is still
//	    without the route, the deletion is made
//
// So only the source's own batches change the table: an outage only makes it
// stale. Files: sync.go follows, apply.go changes the router, brake.go holds
// back, status.go reports.

// A Sync keeps a Router equal to a Source. Source and Router are required. The
// fields must not be changed after Run was called. The methods may be called
// concurrently.
//
// In an outage of the source the table stays as it is. An unreadable or invalid
// route is quarantined, and the last valid route of its key stays. Deletions that
// look like an accident are held back by the brake: see BrakeTime.
//
// Two Syncs may feed one router, but not with routes of the same owner.
type Sync struct {
	Source Source
	Router *slipswitch.Router

	// Name is the source's name in logs, close reports and Status. Empty means its
	// type.
	Name string

	// Owner returns the router's owner for an owner's name in the store: it may set
	// limits, or another name. It must always return the same. Nil means the owner
	// with that name, without limits.
	Owner func(name string) *slipswitch.Owner

	// Route, if set, may modify each route before it is put into Router, by settings
	// of this gateway. The store is not changed. Route must not write into the
	// route's slices and maps, but may replace them, and must keep its key. It is
	// called again and again for a route, and must always do the same.
	Route func(*slipswitch.Route)

	// BrakeTime is the time for which the brake holds back deletions that look like
	// an accident. These are deletions of more than half of an owner's routes within
	// 10 s, if it had at least 100; routes that are added meanwhile make up for
	// others. They are also all deletions, unless Apply made them, by a source that
	// is suddenly empty, has gone back to a lower revision, or has another identity.
	// If the source still does not have the routes after BrakeTime, they are
	// deleted. Zero means 5 min. Negative means no brake.
	BrakeTime time.Duration

	// MaxStale is the time for which Handler serves without contact to the source.
	// Where addresses are reused by other tenants, an old route may lead to one of
	// those. It should be longer than WatchTimeout. Zero means no limit.
	MaxStale time.Duration

	// WatchTimeout is how long the source's watch may yield nothing until it is
	// begun anew. It must be longer than Heartbeat. Zero means 30 s.
	WatchTimeout time.Duration

	// Gateway is this gateway's name among those that share the store. Empty means
	// that the WaitAll of others does not wait for it.
	Gateway string

	// Logger gets what an operator must act on, from a goroutine of its own: if it
	// hangs, it holds up nothing else. Nil means slog.Default(). To log nothing, set
	// a logger of slog.DiscardHandler.
	Logger *slog.Logger

	progress progress

	logging sync.Once
	logger  *slog.Logger // made by log

	mu       sync.Mutex // of what follows
	position Position
	owners   map[string]*owned     // by the store's name for them
	bad      map[badID]Quarantined // what is in quarantine
	contact  time.Time
	lost     error // why the source is not followed; nil: it is
	synced   bool

	disordered bool           // owners of a key may not stand in the store's order,
	reordered  time.Time      // which was last asked for
	again      bool           // the source has broken its promises, and must start with a full batch
	meant      map[record]int // deletions that Apply is making now
	arrived    func()         // tells the router that the first routes have arrived

	known knownActivity
}

const (
	minRetry   = 100 * time.Millisecond
	maxRetry   = 2 * time.Second
	orderPause = 10 * time.Second // between two errOrder
)

// Errors that end a watch besides the source's own.
var (
	errEnded  = errors.New("store: the source has ended the watch")
	errStall  = errors.New("store: the source has fallen silent")
	errRepeat = errors.New("store: asking again about held deletions") // no fault
	errOrder  = errors.New("store: asking again who was first")        // no fault
)

// Run follows the source until the context ends, and returns its error. It must
// be called once.
func (s *Sync) Run(ctx context.Context) error {
	defer s.progress.end()
	arrived := s.Router.Expect()
	defer arrived()
	s.mu.Lock()
	s.arrived = arrived
	s.mu.Unlock()
	s.log().Info("store: waiting for the first routes")
	var aside sync.WaitGroup
	defer aside.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if shared, ok := s.Source.(SharedStore); ok && s.Gateway != "" {
		aside.Go(func() { s.join(ctx, shared) })
	}
	if store, ok := s.Source.(ActivityStore); ok {
		aside.Go(func() { s.keepActivity(ctx, store) })
	}
	retry := minRetry
	for ctx.Err() == nil {
		heard, err := s.follow(ctx)
		if err == errRepeat || err == errOrder || ctx.Err() != nil {
			continue
		}
		s.lose(err)
		if heard {
			retry = minRetry
		}
		select {
		case <-time.After(retry/2 + rand.N(retry/2)): // not all gateways at once
		case <-ctx.Done():
		}
		retry = min(2*retry, maxRetry)
	}
	return ctx.Err()
}

// follow watches the source until that fails, and reports whether any batch came.
func (s *Sync) follow(ctx context.Context) (heard bool, err error) {
	s.mu.Lock()
	from := s.position
	if s.again || s.disordered || s.repeat(time.Now()) {
		from = Position{}
	}
	s.mu.Unlock()
	again := from == Position{}

	var reader sync.WaitGroup
	defer reader.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inbox := make(chan Batch, 64)
	var failed error // of the watch; set when inbox is closed
	reader.Go(func() {
		defer close(inbox)
		failed = s.read(ctx, from, inbox)
	})
	stall := time.NewTimer(s.stallTimeout())
	defer stall.Stop()
	for {
		repeat, stop := s.repeatTimer()
		if again && !heard {
			repeat = nil
		}
		select {
		case b, more := <-inbox:
			stop()
			if !more {
				return heard, failed
			}
			if err := s.apply(coalesce(b, inbox)); err != nil {
				return heard, err
			}
			heard = true
			stall.Reset(s.stallTimeout())
		case <-stall.C:
			stop()
			return heard, errStall
		case <-repeat:
			return heard, errRepeat
		}
	}
}

// read passes on the batches of the source. Only read waits for the source.
func (s *Sync) read(ctx context.Context, from Position, inbox chan<- Batch) error {
	for b, err := range s.Source.Watch(ctx, from) {
		if err != nil {
			return err
		}
		select {
		case inbox <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errEnded
}

// coalesce returns the batch and those queued after it, without those before a
// full batch. It does not wait.
func coalesce(b Batch, inbox <-chan Batch) []Batch {
	batches := []Batch{b}
	for range cap(inbox) {
		select {
		case b, more := <-inbox:
			if !more {
				return batches
			}
			if b.Full {
				batches = batches[:0]
			}
			batches = append(batches, b)
		default:
			return batches
		}
	}
	return batches
}

// lose notes that the source is not being followed.
func (s *Sync) lose(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil || s.lost.Error() != err.Error() {
		s.log().Warn("store: out of contact, keeping the table", "error", err, "revision", s.position.Revision)
	}
	s.lost = err
	s.tell()
}

func (s *Sync) owner(name string) *slipswitch.Owner {
	if s.Owner == nil {
		return &slipswitch.Owner{Name: name}
	}
	return s.Owner(name)
}

func (s *Sync) stallTimeout() time.Duration {
	if s.WatchTimeout == 0 {
		return 3 * Heartbeat
	}
	return s.WatchTimeout
}

// log returns the logger, which never waits, and may be called under locks.
func (s *Sync) log() *slog.Logger {
	s.logging.Do(func() { s.logger = journal.New(s.Logger).With("store", s.name()) })
	return s.logger
}

// name returns the name of the source for people.
func (s *Sync) name() string {
	return cmp.Or(s.Name, strings.TrimPrefix(fmt.Sprintf("%T", s.Source), "*"))
}

// Apply checks changes as [slipswitch.Router.Check] does, writes them to the
// store, and waits until the router has them. It returns the store's revision.
//
// With [ErrHeld] the brake holds some of the deletions; all else is routed.
// With the context's error and a revision above zero, the store has the
// changes and the router has them not yet.
func (s *Sync) Apply(ctx context.Context, owner string, changes ...slipswitch.Change) (revision uint64, err error) {
	store, ok := s.Source.(Store)
	if !ok {
		return 0, ErrReadOnly
	}
	return s.applyBy(ctx, s.Status().Position, store.Write, owner, changes)
}

// ApplyFor is Apply of puts that last for a time only, unless they are made
// again: see [LeaseStore]. Other stores are [ErrNoLeases].
func (s *Sync) ApplyFor(ctx context.Context, ttl time.Duration, owner string, changes ...slipswitch.Change) (revision uint64, err error) {
	store, ok := s.Source.(LeaseStore)
	if !ok {
		return 0, ErrNoLeases
	}
	return s.applyBy(ctx, Position{}, func(ctx context.Context, owner string, changes ...slipswitch.Change) (uint64, error) {
		return store.WriteFor(ctx, ttl, owner, changes...)
	}, owner, changes)
}

// applyBy checks, writes and waits. If the written revision is lower than the
// position that the router had, the store has gone back, and applyBy waits until
// the router has gone back, too.
func (s *Sync) applyBy(ctx context.Context, had Position, write func(context.Context, string, ...slipswitch.Change) (uint64, error), owner string, changes []slipswitch.Change) (revision uint64, err error) {
	if err := s.Router.Check(s.owner(owner), changes...); err != nil {
		return 0, err
	}
	defer s.mean(owner, changes)()
	if revision, err = write(ctx, owner, changes...); err != nil {
		return 0, err
	}
	err = s.wait(ctx, func(has Status) bool {
		return has.Revision >= revision && (revision >= had.Revision || has.Revision < had.Revision || has.Identity != had.Identity)
	})
	if err != nil {
		return revision, fmt.Errorf("store: revision %d is written, but not routed yet: %w", revision, err)
	}
	return revision, s.heldOf(owner, changes)
}
