package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// Tests of how watches, writes and faults come together.

// A batch is applied entirely or not at all. Each puts the same version
// everywhere, or deletes everything, so a watch that sees two versions has seen a
// part of a batch.
func testWhole(t *testing.T, s Subject) {
	st := open(t, s)
	const width = 40
	batch := func(version int) (changes []slipswitch.Change) {
		for i := range width {
			if version%5 == 4 {
				changes = append(changes, del(fmt.Sprint("/", i)))
			} else {
				changes = append(changes, put(fmt.Sprint("/", i), version))
			}
		}
		return changes
	}
	whole := func(f *follower) {
		t.Helper()
		versions := make(map[string]int)
		for _, upstream := range f.has {
			versions[upstream]++
		}
		if len(versions) > 1 || len(f.has) != 0 && len(f.has) != width {
			t.Fatalf("at %v: a part of a batch: %v", f.at, versions)
		}
	}
	write(t, st, "", batch(0)...)
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range 20 {
				if _, err := st.Write(t.Context(), "", batch(100*w+i)...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	early := follow(t, st, store.Position{})
	for writing := true; writing; {
		select {
		case step := <-early.steps:
			step()
			whole(early)
		case <-done:
			writing = false
		}
		late := follow(t, st, early.at) // from any position
		late.has = maps.Clone(early.has)
		late.fulls = early.fulls
		(<-late.steps)()
		whole(late)
	}
	revision := write(t, st, "", batch(1000)...)
	early.wait(revision)
	whole(early)
	if len(early.has) != width || early.has[":/0"] != "up-1000" {
		t.Errorf("in the end there are %v", early.all())
	}
}

func testResume(t *testing.T, s Subject) {
	st := open(t, s)
	write(t, st, "", put("/a", 1), put("/b", 1))
	f := follow(t, st, store.Position{})
	middle := write(t, st, "", put("/a", 2))
	f.wait(middle)
	at := f.at
	write(t, st, "", del("/b"), put("/c", 1))
	end := write(t, st, "", put("/a", 3))
	again := follow(t, st, at)
	again.fulls, again.has = 1, maps.Clone(f.has)
	again.wait(end)
	again.want(":/a=up-3", ":/c=up-1")
	// A watch from another identity, or from a future that a restored store does
	// not know, gets a full batch.
	for name, from := range map[string]store.Position{
		"another store": {Identity: "other", Revision: at.Revision},
		"the future":    {Identity: at.Identity, Revision: end + 1_000_000},
	} {
		if b := first(t, st, from); !b.Full || b.Identity != at.Identity || len(b.Entries) != 2 {
			t.Errorf("from %s comes %+v; want a full batch", name, b)
		}
	}
	if b := first(t, st, store.Position{Identity: at.Identity, Revision: end}); len(b.Entries) > 0 && !b.Full {
		t.Errorf("from the end comes %+v; want nothing, at once", b)
	}
}

// A watcher that does not read delays no other, and misses nothing that lasts.
func testSlow(t *testing.T, s Subject) {
	st := open(t, s)
	slow := follow(t, st, store.Position{})
	slow.wait(0)
	const width, batches = 100, 100
	for b := range batches {
		var changes []slipswitch.Change
		for i := range width {
			path := fmt.Sprintf("/%d/%d", b%2, i)
			if b%7 == 6 {
				changes = append(changes, del(path))
			} else {
				changes = append(changes, put(path, b))
			}
		}
		write(t, st, "", changes...)
	}
	slow.wait(write(t, st, "", put("/last", 0)))
	fresh := follow(t, st, store.Position{})
	fresh.wait(0)
	if got, want := slow.all(), fresh.all(); !slices.Equal(got, want) {
		t.Errorf("the slow watcher has %v; want %v", got, want)
	}
}

func testCancel(t *testing.T, s Subject) {
	st := open(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 8)
	var started sync.WaitGroup
	for range cap(ended) {
		started.Add(1)
		go func() {
			said := sync.OnceFunc(started.Done)
			var last error
			for _, err := range st.Watch(ctx, store.Position{}) {
				said()
				last = err
			}
			ended <- last
		}()
	}
	started.Wait()
	cancel()
	for range cap(ended) {
		select {
		case err := <-ended:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("the watch ended with %v; want the context's error or none", err)
			}
		case <-time.After(patience):
			t.Fatal("a watch goes on without its context")
		}
	}
	if _, err := st.Write(ctx, "", put("/a", 1)); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a write without its context: got %v", err)
	}
}

// Whatever several writers write at once, a gateway gets it: one that was there
// from the beginning, and one that has just started.
func testRandom(t *testing.T, s Subject) {
	st := open(t, s)
	early := start(t, st)
	want := make([]map[string]string, 3) // by writer
	var writers sync.WaitGroup
	for w := range want {
		want[w] = make(map[string]string)
		writers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 7))
			owner := fmt.Sprint("owner", w)
			for range 30 {
				var changes []slipswitch.Change
				for range random.IntN(10) {
					path := fmt.Sprintf("/%d/%d", w, random.IntN(20))
					if random.IntN(3) == 0 {
						changes = append(changes, del(path))
						delete(want[w], path)
					} else {
						version := random.IntN(1000)
						changes = append(changes, put(path, version))
						want[w][path] = fmt.Sprintf("%s:%s=up-%d", owner, path, version)
					}
				}
				if _, err := st.Write(t.Context(), owner, changes...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	revision := write(t, st, "", put("/last", 0))
	all := []string{":/last=up-0"}
	for _, routes := range want {
		for _, text := range routes {
			all = append(all, text)
		}
	}
	slices.Sort(all)
	late := start(t, st)
	for _, g := range []*gateway{early, late} {
		g.wait(revision)
		var got []string
		for e := range g.Router.Table().All() {
			got = append(got, text(e))
		}
		slices.Sort(got)
		if !slices.Equal(got, all) {
			t.Errorf("a gateway has %v; want %v", got, all)
		}
	}
}

// In an outage the table stays and writes fail. Routes that were written
// meanwhile are there soon after it.
func testOutage(t *testing.T, s Subject) {
	if s.Cut == nil {
		t.Skip("nothing can cut the store off")
	}
	st := open(t, s)
	revision := write(t, st, "", put("/a", 1), put("/b", 1))
	g := start(t, st)
	g.wait(revision)
	version := g.Router.Table().Version()
	heal := s.Cut(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := st.Write(ctx, "", put("/a", 2)); !unavailable(err) {
		t.Errorf("a write in an outage: got %v; want ErrUnavailable and the reason", err)
	}
	g.want(":/a=up-1", ":/b=up-1")
	if got := g.Router.Table().Version(); got != version {
		t.Errorf("the table went from version %d to %d", version, got)
	}
	heal()
	healed := time.Now()
	revision = write(t, st, "", put("/a", 3), del("/b"))
	g.wait(revision)
	g.want(":/a=up-3")
	if took := time.Since(healed); took > 5*time.Second {
		t.Errorf("equal to the store %v after the outage; want within 5 s", took)
	}
}
