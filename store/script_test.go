package store_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// A script is a source that says what the test tells it to.
type script struct{ watches chan *watch }

type watch struct {
	from    store.Position
	batches chan store.Batch
	fail    chan error
}

func (s *script) Watch(ctx context.Context, from store.Position) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		w := &watch{from, make(chan store.Batch), make(chan error, 1)}
		select {
		case s.watches <- w:
		case <-ctx.Done():
			return
		}
		for {
			select {
			case b := <-w.batches:
				if !yield(b, nil) {
					return
				}
			case err := <-w.fail:
				yield(store.Batch{}, err)
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// A sharedScript is a script that can be written to, and shared; where the test
// says what comes of it.
type sharedScript struct {
	script
	write   func() uint64
	confirm func(revision uint64)
}

func (s *sharedScript) Write(context.Context, string, ...slipswitch.Change) (uint64, error) {
	return s.write(), nil
}

func (s *sharedScript) Confirm(_ context.Context, revision uint64) error {
	s.confirm(revision)
	return nil
}

func (s *sharedScript) Join(ctx context.Context, _ string, _ <-chan uint64) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *sharedScript) WaitAll(context.Context, uint64) error { return nil }

// A rig is a Sync that runs on a script within a synctest bubble.
type rig struct {
	t *testing.T
	*script
	*store.Sync
	*watch // the current one
}

// newRig starts the Sync and waits for its first watch.
func newRig(t *testing.T, s *store.Sync) *rig {
	source := &script{make(chan *watch)}
	return newRigOn(t, source, source, s)
}

// newRigOn is newRig on a source that has the script.
func newRigOn(t *testing.T, source store.Source, script *script, s *store.Sync) *rig {
	r := &rig{t: t, script: script, Sync: s}
	s.Source, s.Router = source, new(slipswitch.Router)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	r.next()
	return r
}

// next waits for the next watch.
func (r *rig) next() { r.watch = <-r.watches }

// say lets the source yield a batch, and waits until the Sync has done with it.
func (r *rig) say(b store.Batch) {
	r.t.Helper()
	if b.Identity == "" {
		b.Identity = "one"
	}
	select {
	case r.batches <- b:
	case w := <-r.watches:
		r.t.Fatalf("a new watch from %v; want the batch taken", w.from)
	}
	synctest.Wait()
}

func (r *rig) full(revision uint64, entries ...store.Entry) {
	r.t.Helper()
	r.say(store.Batch{Position: store.Position{Revision: revision}, Full: true, Entries: entries})
}

func (r *rig) change(revision uint64, entries ...store.Entry) {
	r.t.Helper()
	r.say(store.Batch{Position: store.Position{Revision: revision}, Entries: entries})
}

// table returns the routes as texts: owner, key, upstream; shadowed ones in
// parentheses.
func (r *rig) table() []string { return tableOf(r.Router) }

func tableOf(router *slipswitch.Router) (table []string) {
	for e := range router.Table().All() {
		text := fmt.Sprintf("%s:%s=%s", e.Owner, e.Key(), strings.TrimPrefix(e.Route().Upstreams[0].URL, "http://"))
		if e.Shadowed {
			text = "(" + text + ")"
		}
		table = append(table, text)
	}
	return table
}

func (r *rig) want(routes ...string) {
	r.t.Helper()
	if got := r.table(); !slices.Equal(got, routes) {
		r.t.Errorf("the table has %v; want %v", got, routes)
	}
}

func put(owner, path, upstream string) store.Entry {
	route := &slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://" + upstream)}
	key, err := route.Key().Canonical()
	if err != nil {
		panic(err)
	}
	return store.Entry{Owner: owner, Key: key, Route: route}
}

func del(owner, path string) store.Entry {
	return store.Entry{Owner: owner, Key: slipswitch.Key{Path: path}}
}

// many returns puts of /from … /to-1.
func many(owner string, from, to int) (entries []store.Entry) {
	for i := from; i < to; i++ {
		entries = append(entries, put(owner, fmt.Sprintf("/%04d", i), "up"))
	}
	return entries
}

// manyGone returns deletions of /from … /to-1.
func manyGone(owner string, from, to int) (entries []store.Entry) {
	for i := from; i < to; i++ {
		entries = append(entries, del(owner, fmt.Sprintf("/%04d", i)))
	}
	return entries
}
