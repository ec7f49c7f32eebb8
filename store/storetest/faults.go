package storetest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// A restarted is a source whose store may be closed and replaced. It always
// starts with a full batch, so that planted values are seen.
type restarted struct {
	mu sync.Mutex
	store.Store
}

func (r *restarted) Watch(ctx context.Context, _ store.Position) iter.Seq2[store.Batch, error] {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Store.Watch(ctx, store.Position{})
}

func (r *restarted) replace(by store.Store) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Store = by
}

// testFaults runs one gateway through all faults of a store, with 100 WebSockets
// that must notice none.
func testFaults(t *testing.T, s Subject) {
	st := open(t, s)
	sockets := NewSockets(t)
	changes := []slipswitch.Change{{Put: new(sockets.Route())}}
	for i := range 120 {
		changes = append(changes, put(fmt.Sprintf("/%03d", i), 1))
	}
	revision := write(t, st, "", changes...)
	source := &restarted{Store: st}
	g := start(t, source)
	g.wait(revision)
	sockets.Open(g.Router, 100)

	// A key that another owner has, too.
	g.wait(write(t, st, "other", put("/001", 2), put("/mine", 2)))
	g.has("/001", ":/001=up-1", "/mine", "other:/mine=up-2")

	if s.Plant != nil { // an unreadable record, and a restart
		closeStore(t, st)
		s.Plant(t, "", slipswitch.Key{Path: "/002"}, "{")
		st = open(t, s)
		source.replace(st)
		write(t, st, "", put("/003", 2))
		g.until(func() bool { return g.at("/003") == ":/003=up-2" })
		g.has("/002", ":/002=up-1", "/004", ":/004=up-1")
		if q := g.Status().Quarantined; len(q) != 1 || q[0].Key.Path != "/002" {
			t.Errorf("in quarantine are %+v; want /002", q)
		}
		write(t, st, "", put("/002", 2))
		g.until(func() bool { return g.at("/002") == ":/002=up-2" && len(g.Status().Quarantined) == 0 })
	}

	if s.Cut != nil { // an outage
		version := g.Router.Table().Version()
		heal := s.Cut(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := st.Write(ctx, "", put("/005", 2)); !unavailable(err) {
			t.Errorf("a write in an outage: got %v; want ErrUnavailable and the reason", err)
		}
		cancel()
		if got := g.Router.Table().Version(); got != version {
			t.Errorf("in an outage the table went from version %d to %d", version, got)
		}
		heal()
		write(t, st, "", put("/006", 2))
		g.until(func() bool { return g.at("/006") == ":/006=up-2" })
	}

	// Most routes vanish at once: their deletions are held, and new routes are
	// not.
	changes = nil
	for i := 10; i < 110; i++ {
		changes = append(changes, del(fmt.Sprintf("/%03d", i)))
	}
	write(t, st, "", changes...)
	write(t, st, "", put("/new", 1))
	g.until(func() bool { return g.at("/new") == ":/new=up-1" && len(g.Status().Braked) == 1 })
	g.has("/010", ":/010=up-1", "/109", ":/109=up-1")
	if err := g.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.until(func() bool { return g.at("/010") == "" && len(g.Status().Braked) == 0 })

	fresh := start(t, st)
	fresh.wait(0)
	if got, want := g.all(), fresh.all(); !slices.Equal(got, want) {
		t.Errorf("in the end the table has %v; want %v", got, want)
	}
}

// at returns the route at a path as text. Empty means that there is none.
func (g *gateway) at(path string) string {
	e, ok := g.Router.Table().At(slipswitch.Key{Path: path})
	if !ok {
		return ""
	}
	return text(e)
}

// has checks the routes at paths. Each path is followed by the wanted text.
func (g *gateway) has(pathsAndTexts ...string) {
	g.t.Helper()
	for pair := range slices.Chunk(pathsAndTexts, 2) {
		if got := g.at(pair[0]); got != pair[1] {
			g.t.Errorf("at %s there is %q; want %q", pair[0], got, pair[1])
		}
	}
}

func (g *gateway) all() (all []string) {
	for e := range g.Router.Table().All() {
		all = append(all, text(e))
	}
	slices.Sort(all)
	return all
}

// until waits for a state. It checks after each new status, and from time to
// time.
func (g *gateway) until(state func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); !state(); {
		if time.Now().After(deadline) {
			g.t.Fatalf("the state does not come; status %+v", g.Status())
		}
		ctx, cancel := context.WithTimeout(g.t.Context(), 20*time.Millisecond)
		g.Wait(ctx, g.Status().Revision+1)
		cancel()
	}
}
