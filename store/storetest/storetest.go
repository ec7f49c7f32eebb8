// Package storetest checks that a store keeps its promises, also during faults.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// patience is how long a test waits for something that should happen soon.
const patience = 20 * time.Second

// A Subject is an empty store to be tested.
type Subject struct {
	// Open opens the store. A store that is an io.Closer is closed and opened
	// again, and must then have everything that it has acknowledged.
	Open func(t *testing.T) store.Store

	// Volatile means that the store loses its routes when it is closed.
	Volatile bool

	// Plant replaces the stored value of a route while the store is closed. Nil
	// means that this is impossible.
	Plant func(t *testing.T, owner string, key slipswitch.Key, value string)

	// Peek returns the stored value of a route while the store is closed.
	Peek func(t *testing.T, owner string, key slipswitch.Key) string

	// Cut cuts the open store off from its server or files, until heal is called.
	// Nil means that this is impossible.
	Cut func(t *testing.T) (heal func())
}

// Run runs all tests, each with a subject of its own.
func Run(t *testing.T, subject func(t *testing.T) Subject) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Subject)
	}{
		{"Empty", testEmpty},
		{"Fields", testFields},
		{"Keys", testKeys},
		{"Owners", testOwners},
		{"Refusals", testRefusals},
		{"Order", testOrder},
		{"Whole", testWhole},
		{"Resume", testResume},
		{"Slow", testSlow},
		{"Cancel", testCancel},
		{"Random", testRandom},
		{"Reopen", testReopen},
		{"Activity", testActivity},
		{"Unreadable", testUnreadable},
		{"Unknown", testUnknown},
		{"Outage", testOutage},
		{"Faults", testFaults},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, subject(t)) })
	}
}

// open opens the subject's store for one test.
func open(t *testing.T, s Subject) store.Store {
	t.Helper()
	opened := s.Open(t)
	t.Cleanup(func() { closeStore(t, opened) })
	return opened
}

// closeStore may be called twice.
func closeStore(t *testing.T, s store.Store) {
	if closer, ok := s.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// route returns a route at the path; the host of its upstream tells one version
// from another.
func route(path string, version int) slipswitch.Route {
	return slipswitch.Route{Path: path, Upstreams: slipswitch.To(fmt.Sprint("http://up-", version))}
}

func put(path string, version int) slipswitch.Change {
	return slipswitch.Change{Put: new(route(path, version))}
}

func del(path string) slipswitch.Change {
	return slipswitch.Change{Delete: &slipswitch.Key{Path: path}}
}

func write(t *testing.T, s store.Store, owner string, changes ...slipswitch.Change) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	revision, err := s.Write(ctx, owner, changes...)
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	return revision
}

// first returns the first batch of a watch.
func first(t *testing.T, s store.Store, from store.Position) store.Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for b, err := range s.Watch(ctx, from) {
		if err != nil {
			t.Fatalf("watch: %v", err)
		}
		return b
	}
	t.Fatalf("the watch from %v has ended without a batch", from)
	panic("unreachable")
}

// A follower is a watch that applies all batches, and checks that they are as
// promised.
type follower struct {
	t     *testing.T
	has   map[string]string // upstreams by owner and key
	at    store.Position
	fulls int
	steps chan func() // closed when the watch has ended
	ended chan error  // with this error
}

// follow starts a watch that the test reads at its own pace, by wait.
func follow(t *testing.T, s store.Store, from store.Position) *follower {
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{t: t, has: make(map[string]string), at: from, steps: make(chan func()), ended: make(chan error, 1)}
	go func() {
		defer close(f.steps)
		f.ended <- f.read(ctx, s, from)
	}()
	t.Cleanup(func() {
		cancel()
		for range f.steps {
		}
	})
	return f
}

func (f *follower) read(ctx context.Context, s store.Store, from store.Position) error {
	for b, err := range s.Watch(ctx, from) {
		if err != nil {
			return err
		}
		select {
		case f.steps <- func() { f.take(b) }:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// take is called by the test's goroutine.
func (f *follower) take(b store.Batch) {
	f.t.Helper()
	switch {
	case b.Full:
		f.fulls++
		clear(f.has)
	case b.Identity != f.at.Identity:
		f.t.Errorf("a batch of %q after %q that is not full", b.Identity, f.at.Identity)
	case b.Revision < f.at.Revision:
		f.t.Errorf("revision %d after %d in a batch that is not full", b.Revision, f.at.Revision)
	}
	if b.Identity == "" {
		f.t.Error("a batch without an identity")
	}
	f.at = b.Position
	for _, e := range b.Entries {
		if canonical, err := e.Key.Canonical(); err != nil || canonical != e.Key {
			f.t.Errorf("the key %q is not canonical", e.Key)
		}
		id := e.Owner + ":" + e.Key.String()
		switch {
		case e.Err != nil:
			f.has[id] = "unreadable"
		case e.Route == nil:
			delete(f.has, id)
		default:
			f.has[id] = strings.TrimPrefix(e.Route.Upstreams[0].URL, "http://")
		}
	}
}

// wait reads until the watch has the revision.
func (f *follower) wait(revision uint64) {
	f.t.Helper()
	f.until(fmt.Sprint("revision ", revision), func() bool { return f.fulls > 0 && f.at.Revision >= revision })
}

func (f *follower) until(what string, done func() bool) {
	f.t.Helper()
	timeout := time.After(patience)
	for !done() {
		select {
		case step, more := <-f.steps:
			if !more {
				f.t.Fatalf("the watch ended before %s: %v", what, <-f.ended)
			}
			step()
		case <-timeout:
			f.t.Fatalf("the watch is still at %v; want %s", f.at, what)
		}
	}
}

// want checks the state of the watch: texts "owner:key=upstream".
func (f *follower) want(want ...string) {
	f.t.Helper()
	if got := f.all(); !slices.Equal(got, want) {
		f.t.Errorf("got %v; want %v", got, want)
	}
}

func (f *follower) all() (all []string) {
	for _, id := range slices.Sorted(maps.Keys(f.has)) {
		all = append(all, id+"="+f.has[id])
	}
	return all
}

// A gateway is a running Sync.
type gateway struct {
	*store.Sync
	t    *testing.T
	stop func()
}

func start(t *testing.T, s store.Store) *gateway {
	g := &gateway{&store.Sync{Source: s, Router: new(slipswitch.Router)}, t, nil}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Run(ctx)
	}()
	g.stop = func() { cancel(); <-done }
	t.Cleanup(g.stop)
	return g
}

func (g *gateway) wait(revision uint64) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	if err := g.Wait(ctx, revision); err != nil {
		g.t.Fatalf("revision %d has not come: %v; status %+v", revision, err, g.Status())
	}
}

func (g *gateway) want(want ...string) {
	g.t.Helper()
	var got []string
	for e := range g.Router.Table().All() {
		got = append(got, text(e))
	}
	if !slices.Equal(got, want) {
		g.t.Errorf("the table has %v; want %v", got, want)
	}
}

// text returns an entry of a table as "owner:key=upstream".
func text(e slipswitch.Entry) string {
	return fmt.Sprintf("%s:%s=%s", e.Owner, e.Key(), strings.TrimPrefix(e.Route().Upstreams[0].URL, "http://"))
}

// unavailable reports whether an error is the one that a write must return in an
// outage.
func unavailable(err error) bool {
	return errors.Is(err, store.ErrUnavailable) && len(err.Error()) > len(store.ErrUnavailable.Error())
}
