package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch/store"
)

// A naiveStore is what the oracle believes: the store's records in the order in
// which they were put first, and what a table makes of them.
type naiveStore struct {
	records []naiveRecord
	good    map[string][]naiveRecord // by path, in the order of the owners' claims
}

type naiveRecord struct{ owner, path, upstream string } // upstream "": unreadable

func (r naiveRecord) is(other naiveRecord) bool {
	return r.owner == other.owner && r.path == other.path
}

func (s *naiveStore) put(r naiveRecord) {
	if i := slices.IndexFunc(s.records, r.is); i >= 0 {
		s.records[i] = r
	} else {
		s.records = append(s.records, r)
	}
	s.claim(r)
}

func (s *naiveStore) claim(r naiveRecord) {
	if r.upstream == "" {
		return
	}
	chain := s.good[r.path]
	if i := slices.IndexFunc(chain, r.is); i >= 0 {
		chain[i] = r
	} else {
		s.good[r.path] = append(chain, r)
	}
}

func (s *naiveStore) delete(r naiveRecord) {
	s.records = slices.DeleteFunc(s.records, r.is)
	s.good[r.path] = slices.DeleteFunc(s.good[r.path], r.is)
}

// resync orders all claims anew, as a gateway that has just started would, but
// with the last good routes it cannot know.
func (s *naiveStore) resync() {
	before := s.good
	s.good = make(map[string][]naiveRecord)
	for _, r := range s.records {
		if i := slices.IndexFunc(before[r.path], r.is); r.upstream == "" && i >= 0 {
			r = before[r.path][i]
		}
		s.claim(r)
	}
}

func (s *naiveStore) entries() (entries []store.Entry) {
	for _, r := range s.records {
		entries = append(entries, r.entry())
	}
	return entries
}

func (s *naiveStore) table() (table []string) {
	for _, chain := range s.good {
		for i, r := range chain {
			text := fmt.Sprintf("%s:%s=%s", r.owner, r.path, r.upstream)
			if i > 0 {
				text = "(" + text + ")"
			}
			table = append(table, text)
		}
	}
	return table
}

func (r naiveRecord) entry() store.Entry {
	e := put(r.owner, r.path, r.upstream)
	if r.upstream == "" {
		e.Route, e.Err = nil, errors.New("unreadable")
	}
	return e
}

func TestSyncAgreesWithOracle(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { agreeWithOracle(t, rand.New(rand.NewPCG(seed, 5)), seed%2 == 0) })
		})
	}
}

func agreeWithOracle(t *testing.T, random *rand.Rand, unreadable bool) {
	r := newRig(t, &store.Sync{BrakeTime: -1})
	naive := naiveStore{good: make(map[string][]naiveRecord)}
	step := func(revision uint64) store.Batch {
		b := store.Batch{Position: store.Position{Identity: "one", Revision: revision}}
		b.Full = revision == 1 || random.IntN(10) == 0
		changes := random.IntN(6)
		if b.Full && unreadable { // the last good ones must have been seen
			synctest.Wait()
			changes = 0
		}
		for range changes {
			record := naiveRecord{string(rune('x' + random.IntN(3))), fmt.Sprint("/", random.IntN(8)), fmt.Sprint(random.IntN(4))}
			if unreadable && random.IntN(8) == 0 {
				record.upstream = ""
			}
			if random.IntN(3) == 0 {
				naive.delete(record)
				b.Entries = append(b.Entries, del(record.owner, record.path))
			} else {
				naive.put(record)
				b.Entries = append(b.Entries, record.entry())
			}
		}
		if b.Full {
			b.Entries = naive.entries()
		}
		return b
	}
	// asked answers a new watch, which the Sync begins when it must know the
	// order of owners.
	asked := func(w *watch, revision uint64) {
		if w.from != (store.Position{}) {
			t.Fatalf("watches from %v", w.from)
		}
		r.watch = w
		r.batches <- store.Batch{Position: store.Position{Identity: "one", Revision: revision}, Full: true, Entries: naive.entries()}
	}
	for revision := uint64(1); revision < 300; {
		time.Sleep(store.OrderPause)
		some := 1 + random.IntN(4) // so that they are coalesced
		if unreadable {
			some = 1 // or what the Sync asks for again leaves out last good ones
		}
		for range some {
			r.batches <- step(revision)
			revision++
		}
		for settled := false; !settled; {
			synctest.Wait()
			select {
			case w := <-r.watches:
				asked(w, revision-1)
			default:
				settled = true
			}
		}
		naive.resync()
		got, want := r.table(), naive.table()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("at revision %d the table has\n%v; want\n%v", revision-1, got, want)
		}
		if routes := r.Status().Routes; routes != len(want) {
			t.Fatalf("the status says %d routes; want %d", routes, len(want))
		}
	}
}
