package store_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch/store"
)

// A watcher goes on from where it was as long as the feed remembers, and else
// asks for everything.
func TestFeedRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var feed store.Feed
		at := func(revision uint64) store.Position { return store.Position{Identity: "one", Revision: revision} }
		feed.Start(at(5))
		fulls := 0
		full := func() (store.Batch, error) {
			fulls++
			return store.Batch{Position: feed.Position(), Full: true}, nil
		}
		first := func(from store.Position) (b store.Batch) {
			for b = range feed.Watch(t.Context(), from, full) {
				break
			}
			return b
		}
		feed.Publish(store.Batch{Position: at(6), Entries: many("", 0, 1)})
		for _, tt := range []struct {
			from    store.Position
			entries int
			full    bool
		}{
			{store.Position{}, 0, true}, {at(4), 0, true}, {at(5), 1, false}, {at(6), 0, false}, {at(7), 0, true},
			{store.Position{Identity: "two", Revision: 5}, 0, true},
		} {
			fulls = 0
			if b := first(tt.from); len(b.Entries) != tt.entries || b.Full != tt.full || b.Revision != 6 || fulls > 1 {
				t.Errorf("from %v: got %+v; want %d entries, full: %v", tt.from, b, tt.entries, tt.full)
			}
		}
		for i := range uint64(3) { // more than it remembers
			feed.Publish(store.Batch{Position: at(7 + i), Entries: many("", 0, 4000)})
		}
		if b := first(at(6)); !b.Full || b.Revision != 9 {
			t.Errorf("from far behind: got a batch with %d entries; want a full one", len(b.Entries))
		}
		began := time.Now()
		for b := range feed.Watch(t.Context(), at(9), full) {
			if len(b.Entries) > 0 || b.Full || b.Position != at(9) {
				t.Errorf("a heartbeat: got %+v; want an empty batch", b)
			}
			if time.Since(began) > 2*store.Heartbeat {
				break
			}
		}
		if took := time.Since(began); took != 3*store.Heartbeat {
			t.Errorf("three heartbeats took %v", took)
		}
	})
}
