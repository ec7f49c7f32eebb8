package boltstore_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
)

// follow starts a Sync that has all that the store has.
func follow(b *testing.B, s *boltstore.Store) (sync *store.Sync, stop func()) {
	sync = &store.Sync{Source: s, Router: new(slipswitch.Router)}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); sync.Run(ctx) }()
	if err := sync.Wait(ctx, 0); err != nil {
		b.Fatal(err)
	}
	return sync, func() { cancel(); <-done }
}

// One route, from the call to the table that has it, among 10,000.
func BenchmarkApply(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "routes.db"))
	fill(b, s, 10_000)
	sync, stop := follow(b, s)
	defer stop()
	for i := 0; b.Loop(); i++ {
		if _, err := sync.Apply(b.Context(), "", put("/5000", fmt.Sprint("up-", i))); err != nil {
			b.Fatal(err)
		}
	}
}

// From a closed file to a table with 100,000 routes.
func BenchmarkStart(b *testing.B) {
	path := filepath.Join(b.TempDir(), "routes.db")
	s := open(b, path)
	fill(b, s, 100_000)
	s.Close()
	for b.Loop() {
		s := open(b, path)
		sync, stop := follow(b, s)
		if got := sync.Router.Table().Len(); got != 100_000 {
			b.Fatalf("%d routes", got)
		}
		stop()
		s.Close()
	}
}
