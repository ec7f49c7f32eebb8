package store_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"pgregory.net/rapid"
)

// A moody is a shared store that does all that the contract of a source lets it
// do: it is late and then tells everything at once, tells several writes in one
// batch, fails, forgets, and goes back.
type moody struct {
	mu        sync.Mutex
	feed      *store.Feed
	at        store.Position
	confirmed uint64
	pending   store.Batch         // writes that are not told yet
	records   map[moodyKey]string // upstreams; "": unreadable
	deleted   map[moodyKey]uint64 // at which revision; of those that watches were told of one by one
	backup    func()              // goes back to how it once was
	late      chan struct{}       // closed when watches go on; nil: they are not late
}

type moodyKey struct{ owner, path string }

func newMoody() *moody {
	m := &moody{at: store.Position{Identity: "one"}, records: make(map[moodyKey]string), deleted: make(map[moodyKey]uint64)}
	m.begin()
	m.keep()
	return m
}

// begin has watches begin anew.
func (m *moody) begin() {
	if m.feed != nil {
		m.feed.Fail(errors.New("moody"))
	}
	m.feed = new(store.Feed)
	m.feed.Start(m.at)
	m.pending = store.Batch{}
	clear(m.deleted) // a full batch does not say when
}

// keep makes a backup.
func (m *moody) keep() {
	at, confirmed, records := m.at, m.confirmed, maps.Clone(m.records)
	m.backup = func() {
		m.at, m.confirmed, m.records = at, confirmed, maps.Clone(records)
		m.begin()
	}
}

// tell publishes what is pending.
func (m *moody) tell() {
	if m.pending.Revision > 0 {
		m.feed.Publish(m.pending)
		m.pending = store.Batch{}
	}
}

// next begins a write.
func (m *moody) next() {
	m.at.Revision++
	m.pending.Position = m.at
}

func (m *moody) put(id moodyKey, upstream string) {
	m.records[id] = upstream
	delete(m.deleted, id)
	m.pending.Entries = append(m.pending.Entries, m.entry(id))
}

func (m *moody) delete(id moodyKey) {
	if _, there := m.records[id]; !there {
		return
	}
	delete(m.records, id)
	m.deleted[id] = m.at.Revision
	m.pending.Entries = append(m.pending.Entries, m.entry(id))
}

func (m *moody) entry(id moodyKey) store.Entry {
	upstream, there := m.records[id]
	e := del(id.owner, id.path)
	switch {
	case there && upstream == "":
		e.Err = errors.New("unreadable")
	case there:
		e = put(id.owner, id.path, upstream)
	}
	e.Revision = m.at.Revision
	return e
}

func (m *moody) Write(_ context.Context, owner string, changes ...slipswitch.Change) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next()
	for _, c := range changes {
		if c.Put != nil {
			m.put(moodyKey{owner, c.Put.Path}, c.Put.Upstreams[0].URL[len("http://"):])
		} else {
			m.delete(moodyKey{owner, c.Delete.Path})
		}
	}
	m.tell()
	return m.at.Revision, nil
}

func (m *moody) Confirm(_ context.Context, revision uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next()
	m.confirmed, m.pending.Confirmed = revision, revision
	m.tell()
	return nil
}

func (m *moody) Join(ctx context.Context, _ string, _ <-chan uint64) error {
	<-ctx.Done()
	return ctx.Err()
}

func (m *moody) WaitAll(context.Context, uint64) error { return nil }

func (m *moody) Watch(ctx context.Context, from store.Position) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		m.mu.Lock()
		feed := m.feed
		m.mu.Unlock()
		for b, err := range feed.Watch(ctx, from, m.full) {
			m.mu.Lock()
			late := m.late
			m.mu.Unlock()
			if late != nil {
				select {
				case <-late:
				case <-ctx.Done():
					return
				}
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

func (m *moody) full() (store.Batch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell()
	clear(m.deleted)
	b := store.Batch{Position: m.at, Full: true, Confirmed: m.confirmed}
	for id := range m.records {
		b.Entries = append(b.Entries, m.entry(id))
	}
	return b, nil
}

// A follows is a Sync on a moody store, and what must always be true of it.
type follows struct {
	*rapid.T
	*moody
	sync    *store.Sync
	version int
}

func (f *follows) upstream() string {
	f.version++
	return fmt.Sprint(f.version)
}

// ids draws a range of one owner's routes.
func (f *follows) ids() (ids []moodyKey) {
	owner := rapid.SampledFrom([]string{"x", "y"}).Draw(f.T, "owner")
	from := rapid.SampledFrom([]int{0, 7, 50, 100}).Draw(f.T, "from")
	n := rapid.SampledFrom([]int{1, 3, 40, 80, 150}).Draw(f.T, "routes")
	for i := from; i < min(from+n, 150); i++ {
		ids = append(ids, moodyKey{owner, fmt.Sprintf("/%03d", i)})
	}
	return ids
}

// locked does something to the store.
func (f *follows) locked(do func()) func(*rapid.T) {
	return func(*rapid.T) {
		f.mu.Lock()
		defer f.mu.Unlock()
		do()
	}
}

func (f *follows) maybeTell() {
	if rapid.Bool().Draw(f.T, "tell") {
		f.tell()
	}
}

func (f *follows) punctual() {
	if f.late != nil {
		close(f.late)
		f.late = nil
	}
}

// settle waits until the Sync must have all.
func (f *follows) settle() {
	f.locked(func() { f.punctual(); f.tell() })(nil)
	time.Sleep(5 * time.Second)
	synctest.Wait()
}

// check compares the router with the store, which is settled.
func (f *follows) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	status, held := f.sync.Status(), 0
	if status.Error != "" || status.Position != f.at {
		f.Fatalf("status %+v; want all well at %v", status, f.at)
	}
	table := f.sync.Router.Table()
	for id, upstream := range f.records {
		e, there := table.Of(id.owner, slipswitch.Key{Path: id.path})
		if upstream != "" && (!there || e.Route().Upstreams[0].URL != "http://"+upstream) {
			f.Fatalf("%v: the table has %v, %+v; want %s", id, there, e.Route(), upstream)
		}
	}
	routes := 0
	for e := range table.All() {
		routes++
		id := moodyKey{e.Owner, e.Key().Path}
		if _, there := f.records[id]; there {
			continue
		}
		held++
		if at, told := f.deleted[id]; told && at <= f.confirmed {
			f.Fatalf("%v was deleted at %d, which is confirmed up to %d, and is still there", id, at, f.confirmed)
		}
	}
	for _, braked := range status.Braked {
		held -= braked.Held
	}
	if held != 0 || status.Routes != routes {
		f.Fatalf("%d routes are in the table alone and not held; it has %d, and the status says %+v", held, routes, status)
	}
	bad := 0
	for _, upstream := range f.records {
		if upstream == "" {
			bad++
		}
	}
	if len(status.Quarantined) != bad {
		f.Fatalf("%d in quarantine; want %d", len(status.Quarantined), bad)
	}
}

// Whatever a source does within its contract, and whenever: in the end the table
// has all that the store has, and nothing else but what the brake says it holds;
// and what Apply acknowledges is routed.
func TestSyncOnMoodySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) { followMoody(t, rt) }) // a T in a bubble has no deadline
	})
}

func followMoody(t *testing.T, rt *rapid.T) {
	m := newMoody()
	f := &follows{rt, m, &store.Sync{Source: m, Router: new(slipswitch.Router), BrakeTime: time.Minute}, 0}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.sync.Run(ctx) }()
	defer func() { cancel(); <-done }()
	f.locked(func() {
		f.next()
		for i := range 150 {
			f.put(moodyKey{"x", fmt.Sprintf("/%03d", i)}, "first")
		}
		f.tell()
	})(nil)
	rt.Repeat(map[string]func(*rapid.T){
		"put": f.locked(func() {
			f.next()
			for _, id := range f.ids() {
				f.put(id, f.upstream())
			}
			f.maybeTell()
		}),
		"delete": f.locked(func() {
			f.next()
			for _, id := range f.ids() {
				f.delete(id)
			}
			f.maybeTell()
		}),
		"spoil": f.locked(func() {
			f.next()
			f.put(f.ids()[0], "")
			f.maybeTell()
		}),
		"confirmElsewhere": f.locked(func() {
			f.confirmed = f.at.Revision
			f.next()
			f.pending.Confirmed = f.confirmed
			f.maybeTell()
		}),
		"confirm": func(*rapid.T) {
			if err := f.sync.Confirm(ctx); err != nil {
				f.Fatal(err)
			}
		},
		"late":   f.locked(func() { f.punctual(); f.late = make(chan struct{}) }),
		"fail":   f.locked(func() { f.tell(); f.begin() }),
		"forget": f.locked(func() { f.tell(); f.feed.Publish(store.Batch{Position: f.at, Full: true}) }), // watches ask for all
		"backup": f.locked(func() { f.tell(); f.keep() }),
		"restore": func(*rapid.T) {
			f.locked(func() {
				f.backup()
				if rapid.Bool().Draw(f.T, "another") {
					f.at.Identity += "'"
					f.begin()
				}
			})(nil)
			f.settle() // before it is past the revision that the Sync had
		},
		"sleep": func(*rapid.T) {
			time.Sleep(time.Duration(rapid.SampledFrom([]int{0, 1, 15, 61}).Draw(f.T, "seconds")) * time.Second)
		},
		"settle": func(*rapid.T) { f.settle(); f.check() },
		"apply": func(*rapid.T) {
			f.locked(f.punctual)(nil)
			id, upstream := f.ids()[0], f.upstream()
			if _, err := f.sync.Apply(ctx, id.owner, slipswitch.Change{Put: put(id.owner, id.path, upstream).Route}); err != nil {
				f.Fatal(err)
			}
			e, there := f.sync.Router.Table().Of(id.owner, slipswitch.Key{Path: id.path})
			if !there || e.Route().Upstreams[0].URL != "http://"+upstream {
				f.Fatalf("acknowledged, and %v is %v, %+v; want %s", id, there, e.Route(), upstream)
			}
		},
	})
	f.settle()
	f.check()
	time.Sleep(3 * time.Minute)
	if braked := f.sync.Status().Braked; len(braked) > 0 {
		f.Fatalf("still braked: %+v", braked)
	}
	f.check()
}
