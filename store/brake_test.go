package store_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

func (r *rig) wantCount(routes, held int) {
	r.t.Helper()
	status, n := r.Status(), 0
	for _, b := range status.Braked {
		n += b.Held
	}
	if got := r.Router.Table().Len(); got != routes || n != held || status.Routes != routes {
		r.t.Errorf("the table has %d routes, the status %d, %d of them held; want %d, %d", got, status.Routes, n, routes, held)
	}
}

func TestBrakeOnResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &store.Sync{WatchTimeout: time.Hour})
		r.full(1, append(many("a", 0, 100), many("b", 200, 299)...)...)
		r.full(2, append(many("a", 0, 50), many("b", 200, 299)...)...) // half is not more than half
		r.wantCount(149, 0)
		time.Sleep(time.Minute)
		r.full(3, many("a", 0, 100)...) // b has less than 100: no brake
		r.wantCount(100, 0)
		time.Sleep(time.Minute)
		r.full(4, many("a", 40, 89)...)
		r.wantCount(100, 51)
		b := r.Status().Braked[0]
		if b.Owner != "a" || b.Routes != 100 || !b.Since.Equal(time.Now()) || !b.Until.Equal(time.Now().Add(5*time.Minute)) {
			t.Errorf("braked %+v", b)
		}
		var first []string
		for _, key := range b.First {
			first = append(first, key.Path)
		}
		if want := "/0000 /0001 /0002 /0003 /0004 /0005 /0006 /0007 /0008 /0009"; strings.Join(first, " ") != want {
			t.Errorf("the first that are held are %v; want %v", first, want)
		}
		// Additions and changes pass, and what comes back is not held any more.
		change := many("a", 90, 95)
		change = append(change, many("a", 300, 310)...)
		r.change(5, append(change, put("a", "/0050", "other"))...)
		r.wantCount(110, 46)
		// More deletions are held, too, while any are.
		r.change(6, manyGone("a", 50, 52)...)
		r.wantCount(110, 48)
		r.full(7, many("a", 0, 100)...)
		r.wantCount(100, 0)
	})
}

func TestBrakeWithinWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 200)...)
		for i := range 200 { // one by one, two a second
			r.change(uint64(2+i), manyGone("", i, i+1)...)
			time.Sleep(500 * time.Millisecond)
		}
		// Never more than 20 within 10 s; but below 100 routes there is no brake.
		r.wantCount(0, 0)
		time.Sleep(10 * time.Second)
		r.full(300, many("", 0, 200)...)
		for i := range 150 { // twenty a second
			r.change(uint64(301+i), manyGone("", i, i+1)...)
			time.Sleep(50 * time.Millisecond)
		}
		r.wantCount(100, 50)
	})
}

// comeAndGo has a route, named by a number, last for a moment, again and again.
func (r *rig) comeAndGo(number, times int, every time.Duration) {
	for i := range uint64(times) {
		r.change(2+2*i, many("", number, number+1)...)
		r.change(3+2*i, manyGone("", number, number+1)...)
		time.Sleep(every)
	}
}

// What the brake remembers of a table that changes all day does not grow with
// the number of changes.
func TestBrakeRemembersLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 4000)...)
		r.comeAndGo(4000, 3000, 4*time.Millisecond)
		r.wantCount(4000, 0)
		if n := r.Moments(""); n > 102 {
			t.Errorf("%d moments of 10 s are remembered; want one for each 0.1 s at most", n)
		}
	})
}

// In a small table routes may live for moments: what counts is how many fewer
// there are in the end.
func TestBrakeOfRoutesForMoments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 100)...)
		r.comeAndGo(200, 1000, 20*time.Millisecond)
		r.wantCount(100, 0)
		r.change(3000, many("", 200, 500)...)
		r.change(3001, manyGone("", 200, 400)...) // half
		r.wantCount(200, 0)
		time.Sleep(5 * time.Second)
		r.change(3002, manyGone("", 400, 401)...)
		r.wantCount(200, 1)
	})
}

// Deletion and addition of one key in one go is no deletion; nor is a route
// that moves between owners one of the other's.
func TestBrakeCountsWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 100)...)
		r.change(2, append(manyGone("", 0, 100), many("", 0, 100)...)...)
		r.wantCount(100, 0)
		r.change(3, append(many("", 0, 100), manyGone("", 0, 100)...)...)
		r.wantCount(100, 100)
		r.change(4, append(many("", 0, 100), manyGone("", 0, 100)...)...)
		r.wantCount(100, 100) // still
		r.change(5, append(manyGone("", 0, 100), many("", 0, 50)...)...)
		r.wantCount(100, 50)
	})
}

func TestBrakeConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 150)...)
		r.full(2, many("", 0, 20)...)
		r.wantCount(150, 130)
		if err := r.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCount(20, 0)
		r.change(3, manyGone("", 0, 5)...) // those that are gone do not count any more
		r.wantCount(15, 0)
	})
}

// A full batch that names routes as deleted is held as one that leaves them out.
func TestBrakeOnNamedDeletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 150)...)
		r.full(2, append(many("", 0, 20), manyGone("", 20, 150)...)...)
		r.wantCount(150, 130)
	})
}

// A held route that is put again has been away: other owners' come before it.
func TestBrakeHeldRouteComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, append(many("x", 0, 150), put("y", "/0007", "y"))...)
		r.change(2, manyGone("x", 0, 150)...)
		r.change(3, many("x", 7, 8)...)
		e, _ := r.Router.Table().At(put("y", "/0007", "y").Key)
		if held := r.Status().Braked[0].Held; e.Owner != "y" || held != 149 {
			t.Errorf("%s has the key, and %d are held; want y, and 149", e.Owner, held)
		}
	})
}

// Another gateway's confirmation comes by the store, and is for what was held
// until then.
func TestBrakeConfirmedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 150)...)
		r.change(2, manyGone("", 20, 150)...)
		r.change(3, manyGone("", 10, 20)...)
		r.wantCount(150, 140)
		r.say(store.Batch{Position: store.Position{Revision: 4}, Confirmed: 2})
		r.wantCount(20, 10)
		r.say(store.Batch{Position: store.Position{Revision: 5}, Confirmed: 3})
		r.wantCount(10, 0)
	})
}

// A gateway that was cut off is told of deletions and their confirmation in one
// go, and holds nothing; it does hold what was deleted after that.
func TestBrakeConfirmedInOneGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 300)...)
		entries := append(manyGone("", 20, 180), manyGone("", 200, 210)...)
		for i := range entries {
			entries[i].Revision = uint64(2 + i/160)
		}
		r.say(store.Batch{Position: store.Position{Revision: 4}, Entries: entries, Confirmed: 2})
		r.wantCount(130, 0)
		r.say(store.Batch{Position: store.Position{Revision: 9}, Entries: manyGone("", 210, 300), Confirmed: 8})
		r.wantCount(130, 90)
	})
}

// What is deleted while the other gateways are told of a confirmation is not
// confirmed, there or here.
func TestBrakeConfirmMeansWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sharedScript{script: script{make(chan *watch)}}
		r := newRigOn(t, s, &s.script, new(store.Sync))
		r.full(1, many("", 0, 300)...)
		r.change(7, manyGone("", 0, 200)...)
		s.confirm = func(revision uint64) {
			if revision != 7 {
				t.Errorf("confirms revision %d; want 7", revision)
			}
			r.change(8, manyGone("", 200, 250)...)
		}
		if err := r.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCount(100, 50)
	})
}

// Of a store that was restored to a lower revision, what is held counts anew:
// else no other gateway's confirmation would reach it.
func TestBrakeConfirmedAfterRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(900, many("", 0, 150)...)
		r.change(901, manyGone("", 20, 150)...)
		r.full(5, many("", 0, 20)...)
		r.wantCount(150, 130)
		r.say(store.Batch{Position: store.Position{Revision: 7}, Confirmed: 6})
		r.wantCount(20, 0)
	})
}

// After BrakeTime the source is asked again, and only what it still does not
// have is deleted.
func TestBrakeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &store.Sync{BrakeTime: time.Minute, WatchTimeout: time.Hour})
		r.full(1, many("", 0, 150)...)
		since := time.Now()
		r.change(2, manyGone("", 10, 150)...)
		time.Sleep(30 * time.Second)
		r.change(3, manyGone("", 0, 2)...)
		r.wantCount(150, 142)
		r.next()
		if got := time.Since(since); got != time.Minute || r.from != (store.Position{}) {
			t.Errorf("watched from %v after %v; want from the beginning after 1 min", r.from, got)
		}
		r.fail <- errors.New("down")
		r.next() // after the usual pause
		if r.from != (store.Position{}) {
			t.Errorf("watched from %v; want from the beginning", r.from)
		}
		r.wantCount(150, 142)
		r.full(4, append(many("", 2, 10), many("", 100, 120)...)...)
		r.wantCount(30, 2)
		r.next()
		r.full(4, append(many("", 2, 10), many("", 100, 120)...)...)
		r.wantCount(28, 0)
		time.Sleep(time.Hour - time.Second)
		synctest.Wait()
		select {
		case <-r.watches:
			t.Error("asks again though nothing is held")
		default:
		}
	})
}

func TestBrakeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &store.Sync{BrakeTime: -1})
		r.full(1, many("", 0, 150)...)
		r.full(2)
		r.wantCount(0, 0)
	})
}

// A held route that is put again, but badly, is not to go any more.
func TestBrakeHeldRouteTurnsBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, many("", 0, 150)...)
		r.full(2)
		r.wantCount(150, 150)
		bad := put("", "/0007", ":bad:")
		r.change(3, bad)
		r.wantCount(150, 149) // it is there again, if bad: the last good one stays
		if err := r.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCount(1, 0)
	})
}

// What only an accident brings about is held back, however few routes there are: a
// source that is empty after it was not, one that has gone back, or another one
// in its place.
func TestBrakeOnSuspicion(t *testing.T) {
	position := func(identity string, revision uint64) store.Position {
		return store.Position{Identity: identity, Revision: revision}
	}
	for _, tt := range []struct {
		name    string
		now     store.Batch
		routes  int // of 60
		held    int
		because string // empty: nothing is held
	}{
		{"empty", store.Batch{Position: position("one", 63)}, 60, 60, "the source is empty"},
		{"said to be empty", store.Batch{Position: position("one", 63), Entries: manyGone("a", 0, 60)}, 60, 60, "the source is empty"},
		{"wiped", store.Batch{Position: position("one", 1)}, 60, 60, "the source has gone back from revision 62 to 1"},
		{"restored", store.Batch{Position: position("one", 61), Entries: many("a", 0, 59)}, 60, 1, "the source has gone back from revision 62 to 61"},
		{"another", store.Batch{Position: position("two", 99), Entries: many("a", 10, 60)}, 60, 10, `the source is another one: "two" instead of "one"`},
		{"another with all of them", store.Batch{Position: position("two", 9), Entries: many("a", 0, 60)}, 60, 0, ""},
		{"all but one gone", store.Batch{Position: position("one", 63), Entries: many("a", 0, 1)}, 1, 0, ""},
		{"unreadable", store.Batch{Position: position("one", 63), Entries: []store.Entry{{Where: "b.yaml", Err: errors.New("broken")}}}, 0, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &store.Sync{BrakeTime: time.Minute, WatchTimeout: time.Hour})
				r.full(62, many("a", 0, 60)...)
				tt.now.Full = true
				r.say(tt.now)
				r.wantCount(tt.routes, tt.held)
				because := ""
				for _, b := range r.Status().Braked {
					because = b.Because
				}
				if because != tt.because {
					t.Errorf("held because %q; want %q", because, tt.because)
				}
				if tt.held == 0 {
					return
				}
				// What is said again after BrakeTime is meant.
				r.next()
				r.say(tt.now)
				r.wantCount(tt.routes-tt.held, 0)
			})
		})
	}
}

// The same, where the source goes back within a watch.
func TestBrakeOnBrokenPromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(62, many("a", 0, 60)...)
		r.change(5)
		r.next()
		if r.from != (store.Position{}) {
			t.Errorf("watched from %v; want from the beginning", r.from)
		}
		r.full(5, many("a", 0, 10)...)
		r.wantCount(60, 50)
	})
}

// Whoever deletes the last routes by Apply means that, also if the source tells
// each change as a full batch.
func TestBrakeKnowsWhatIsMeant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sharedScript{script: script{make(chan *watch)}}
		r := newRigOn(t, s, &s.script, new(store.Sync))
		r.full(1, many("", 0, 3)...)
		apply := func(revision uint64, from, to int, left ...store.Entry) error {
			s.write = func() uint64 { r.full(revision, left...); return revision }
			var changes []slipswitch.Change
			for _, e := range many("", from, to) {
				changes = append(changes, slipswitch.Change{Delete: &e.Key})
			}
			_, err := r.Apply(t.Context(), "", changes...)
			return err
		}
		if err := apply(2, 2, 3, many("", 0, 2)...); err != nil {
			t.Error(err)
		}
		if err := apply(3, 1, 2); !errors.Is(err, store.ErrHeld) { // somebody else has deleted the other
			t.Errorf("got %v; want ErrHeld", err)
		}
		r.wantCount(2, 2)
		r.full(4, many("", 0, 2)...)
		if err := apply(5, 0, 2); err != nil {
			t.Error(err)
		}
		r.wantCount(0, 0)
	})
}
