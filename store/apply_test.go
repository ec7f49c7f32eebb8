package store_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

func TestSyncWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		var done [2]bool
		for i, revision := range []uint64{0, 6} {
			go func() {
				if err := r.Wait(t.Context(), revision); err != nil {
					t.Error(err)
				}
				done[i] = true
			}()
		}
		synctest.Wait()
		if done != [2]bool{} {
			t.Error("waited for nothing")
		}
		r.full(5)
		if done != [2]bool{true, false} {
			t.Errorf("at revision 5: %v; want the first done", done)
		}
		r.change(7)
		if done != [2]bool{true, true} {
			t.Errorf("at revision 7: %v; want both done", done)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Wait(ctx, 8); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v; want the context's error", err)
		}
	})
}

// What can never come is not waited for.
func TestSyncWaitAfterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory store.Memory
		s := &store.Sync{Source: &memory, Router: new(slipswitch.Router)}
		ctx, cancel := context.WithCancel(t.Context())
		go s.Run(ctx)
		if err := s.Wait(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		waited := make(chan error, 1)
		go func() { waited <- s.Wait(t.Context(), 1) }()
		synctest.Wait()
		cancel()
		if err := <-waited; !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("got %v; want ErrUnavailable", err)
		}
		revision, err := s.Apply(t.Context(), "", slipswitch.Change{Put: &slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://1")}})
		if revision != 1 || !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a write: got %d, %v; want it written, and ErrUnavailable", revision, err)
		}
		if err := s.Wait(t.Context(), 0); err != nil {
			t.Errorf("what is there: got %v", err)
		}
	})
}

func TestSyncApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory store.Memory
		s := &store.Sync{Source: &memory, Router: new(slipswitch.Router)}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go s.Run(ctx)
		good := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://1")}
		bad := slipswitch.Route{Path: "/b", Upstreams: slipswitch.To("1")}
		revision, err := s.Apply(ctx, "chp", slipswitch.Change{Put: &good})
		if err != nil || revision != 1 || len(tableOf(s.Router)) != 1 {
			t.Errorf("got revision %d, %v, %v", revision, err, tableOf(s.Router))
		}
		_, err = s.Apply(ctx, "chp", slipswitch.Change{Put: &bad}, slipswitch.Change{Delete: &slipswitch.Key{Path: "/a"}})
		if batch, ok := errors.AsType[*slipswitch.BatchError](err); !ok || len(batch.Routes) != 1 {
			t.Errorf("an invalid batch: got %v; want a batch error", err)
		}
		if got := tableOf(s.Router); len(got) != 1 {
			t.Errorf("the table has %v; want nothing changed", got)
		}
		if _, err := s.ApplyFor(ctx, time.Minute, "", slipswitch.Change{Put: &good}); !errors.Is(err, store.ErrNoLeases) {
			t.Errorf("a store without leases: got %v", err)
		}
		r := newRig(t, new(store.Sync))
		if _, err := r.Apply(ctx, "", slipswitch.Change{Put: &good}); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("a source that is no store: got %v", err)
		}
	})
}

// A write to a store that was restored to a lower revision is not taken for
// routed because the table had a higher one.
func TestSyncApplyAfterRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sharedScript{script: script{make(chan *watch)}, write: func() uint64 { return 6 }}
		r := newRigOn(t, s, &s.script, new(store.Sync))
		r.full(900)
		applied := make(chan error, 1)
		go func() {
			_, err := r.Apply(t.Context(), "", slipswitch.Change{Put: put("", "/a", "1").Route})
			applied <- err
		}()
		synctest.Wait()
		select {
		case err := <-applied:
			t.Fatalf("acknowledged (%v) before the table has it: %v", err, r.table())
		default:
		}
		r.fail <- errors.New("gone back")
		r.next()
		r.full(6, put("", "/a", "1"))
		if err := <-applied; err != nil {
			t.Error(err)
		}
		r.want(":/a=1")
	})
}
