package store_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

func TestSyncFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		if r.Status().Synced {
			t.Error("synced before the source said anything")
		}
		r.full(5, put("", "/a", "1"), put("chp", "/b", "1"), put("", "/c/", "1"))
		r.want(":/a=1", "chp:/b=1", ":/c=1")
		if v := r.Router.Table().Version(); v != 1 {
			t.Errorf("the first state came in %d tables; want 1", v)
		}
		r.change(7, put("", "/a", "2"), del("chp", "/b"), del("", "/none"))
		r.want(":/a=2", ":/c=1")
		r.change(9)
		if v := r.Router.Table().Version(); v != 2 {
			t.Errorf("version %d after a change and a heartbeat; want 2", v)
		}
		got := r.Status()
		if !got.Synced || got.Revision != 9 || got.Routes != 2 || got.Error != "" || got.Contact != time.Now() {
			t.Errorf("status %+v", got)
		}
		r.full(11, put("", "/c", "1"), put("", "/d", "1"))
		r.want(":/c=1", ":/d=1")
	})
}

// A full batch is applied by difference: what stays as it was is not touched.
func TestSyncResyncTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, put("", "/a", "1"), put("", "/b", "1"))
		before := r.Router.Table()
		r.full(9, put("", "/b", "1"), put("", "/a", "1"))
		if r.Router.Table() != before {
			t.Error("a full batch with the same routes made another table")
		}
	})
}

func TestCoalesce(t *testing.T) {
	inbox := make(chan store.Batch, 8)
	for i := range uint64(6) {
		inbox <- store.Batch{Position: store.Position{Revision: i + 2}, Full: i == 2}
	}
	close(inbox)
	got := store.Coalesce(store.Batch{Position: store.Position{Revision: 1}}, inbox)
	if len(got) != 4 || !got[0].Full || got[0].Revision != 4 || got[3].Revision != 7 {
		t.Errorf("got %+v; want what begins with the full batch", got)
	}
}

func TestSyncQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		unreadable := store.Entry{Key: slipswitch.Key{Path: "/b"}, Err: errors.New("no JSON"), Where: "line 7"}
		misplaced := put("", "/c", "2")
		misplaced.Key.Path = "/e"
		r.full(1, put("", "/a", "1"), put("", "/b", "1"), put("", "/c", "1"), put("", "/d", "1"), put("", "/e", "1"))
		r.change(2, put("", "/a", "2"), unreadable, misplaced, put("", "/d", ":bad:"), put("", "/f", "1"),
			store.Entry{Key: slipswitch.Key{Path: "no slash"}}, store.Entry{Where: "key 9", Err: errors.New("no key")})
		r.want(":/a=2", ":/b=1", ":/c=1", ":/d=1", ":/e=1", ":/f=1") // the last good ones stay
		status := r.Status()
		if len(status.Quarantined) != 5 || status.Revision != 2 {
			t.Errorf("status %+v; want five routes in quarantine", status)
		}
		since := status.Quarantined[0].Since
		time.Sleep(time.Second)
		r.full(3, put("", "/a", "2"), unreadable, put("", "/c", "1"), put("", "/d", "3"), put("", "/e", "1"))
		r.want(":/a=2", ":/b=1", ":/c=1", ":/d=3", ":/e=1")
		r.change(3, store.Entry{Where: "key 9", Err: errors.New("no key")})
		r.change(3, store.Entry{Where: "key 9"})
		if q := r.Status().Quarantined; len(q) != 1 || q[0].Key.Path != "/b" || q[0].Where != "line 7" || !q[0].Since.Equal(since) {
			t.Errorf("quarantined %+v; want /b, since before", q)
		}
		r.change(4, del("", "/b"))
		r.want(":/a=2", ":/c=1", ":/d=3", ":/e=1")
		if q := r.Status().Quarantined; len(q) != 0 {
			t.Errorf("quarantined %+v; want none", q)
		}
	})
}

// The limits of an owner hold back the routes outside of them alone.
func TestSyncOwnerLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &store.Sync{Owner: func(name string) *slipswitch.Owner {
			return &slipswitch.Owner{Name: "files/" + name, Paths: []string{"/team"}}
		}})
		r.full(1, put("a", "/team/x", "1"), put("a", "/other", "1"))
		r.want("files/a:/team/x=1")
		if q := r.Status().Quarantined; len(q) != 1 || q[0].Owner != "a" || q[0].Key.Path != "/other" {
			t.Errorf("quarantined %+v; want /other", q)
		}
	})
}

// Of two owners of a key the store's first keeps it, in whichever order this
// gateway comes to know them.
func TestSyncTwoOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(1, put("x", "/a", "x"), put("y", "/a", "y"), put("y", "/b", "y"))
		r.want("x:/a=x", "(y:/a=y)", "y:/b=y")
		r.change(2, del("x", "/a"), put("x", "/a", "x2"))
		r.want("y:/a=y", "(x:/a=x2)", "y:/b=y")
		r.full(3, put("x", "/a", "x3"), put("y", "/a", "y"), put("y", "/b", "y"))
		r.want("x:/a=x3", "(y:/a=y)", "y:/b=y")
		bad := put("x", "/a", "x")
		bad.Err, bad.Route = errors.New("bad"), nil
		r.full(4, put("y", "/a", "y"), bad, put("y", "/b", "y"))
		r.want("y:/a=y", "(x:/a=x3)", "y:/b=y") // the last good one, and where the store has it
		if got := r.Status().Routes; got != 3 {
			t.Errorf("%d routes; want 3", got)
		}
	})
}

// A record that was unreadable and is put right is in the store's order, too,
// as on a gateway that begins now.
func TestSyncRepairedOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		bad := put("x", "/a", "x")
		bad.Err, bad.Route = errors.New("bad"), nil
		r.full(1, bad, put("y", "/a", "y"), put("y", "/b", "y"))
		r.want("y:/a=y", "y:/b=y")
		r.change(2, put("x", "/a", "x"))
		r.next()
		if r.from != (store.Position{}) {
			t.Errorf("watches from %v; want from the beginning, for the order", r.from)
		}
		r.full(2, put("x", "/a", "x"), put("y", "/a", "y"), put("y", "/b", "y"))
		r.want("x:/a=x", "(y:/a=y)", "y:/b=y")
		if got := r.Status(); got.Error != "" || got.Revision != 2 {
			t.Errorf("status %+v; want nothing wrong", got)
		}
		r.change(3, bad) // the last good one stays
		r.change(4, put("x", "/a", "x"))
		r.want("x:/a=x", "(y:/a=y)", "y:/b=y")
	})
}

func TestSyncOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &store.Sync{MaxStale: time.Minute})
		handler := r.Handler(http.NotFoundHandler())
		status := func() int {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest("GET", "/a", nil))
			return w.Code
		}
		r.full(5, put("", "/a", "1"))
		down, tries := time.Now(), 0
		r.fail <- errors.New("on fire")
		for time.Since(down) < 30*time.Second {
			r.next()
			tries++
			if r.from != (store.Position{Identity: "one", Revision: 5}) {
				t.Fatalf("watches from %v; want from where it was", r.from)
			}
			if got := r.Status(); got.Error != "on fire" || r.Stale() != time.Since(down) {
				t.Fatalf("status %+v, stale for %v; want on fire for %v", got, r.Stale(), time.Since(down))
			}
			r.fail <- errors.New("on fire")
		}
		if tries < 15 || tries > 45 {
			t.Errorf("tried %d times in 30 s; want about every 1 to 2 s", tries)
		}
		if got := status(); got != 404 {
			t.Errorf("status %d; want the table used", got)
		}
		time.Sleep(time.Minute)
		r.want(":/a=1")
		if got := status(); got != 503 {
			t.Errorf("after MaxStale: status %d; want 503", got)
		}
		r.next()
		r.change(6, put("", "/b", "1"))
		r.want(":/a=1", ":/b=1")
		if got := r.Status(); got.Error != "" || r.Stale() != 0 || status() != 404 {
			t.Errorf("after the outage: status %+v, stale for %v", got, r.Stale())
		}
	})
}

func TestSyncStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		r.full(5, put("", "/a", "1"))
		for range 5 {
			time.Sleep(store.Heartbeat)
			r.change(5)
		}
		silent := time.Now()
		r.next()
		if got := time.Since(silent); got < 30*time.Second || got > 31*time.Second {
			t.Errorf("watched anew after %v of silence; want 30 s", got)
		}
		if r.Status().Error == "" {
			t.Error("the status does not tell")
		}
		r.want(":/a=1")
	})
}

// A source that breaks its promises is followed from the beginning.
func TestSyncSourceGoesBack(t *testing.T) {
	for name, b := range map[string]store.Batch{
		"revision": {Position: store.Position{Identity: "one", Revision: 4}, Entries: []store.Entry{del("", "/a")}},
		"identity": {Position: store.Position{Identity: "two", Revision: 6}, Entries: []store.Entry{del("", "/a")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, new(store.Sync))
				r.full(5, put("", "/a", "1"))
				r.say(b)
				r.want(":/a=1")
				r.next()
				if r.from != (store.Position{}) {
					t.Errorf("watches from %v; want from the beginning", r.from)
				}
				r.say(store.Batch{Position: store.Position{Identity: "two", Revision: 2}, Full: true, Entries: []store.Entry{put("", "/b", "1")}})
				r.want(":/a=1", ":/b=1")
				r.wantCount(2, 1) // /a may still be meant to be there
				if got := r.Status().Position; got != (store.Position{Identity: "two", Revision: 2}) {
					t.Errorf("at %v; want the other store's position", got)
				}
			})
		})
	}
}

// What the store knows of activity outlives the gateway, and is kept once a
// minute.
func TestSyncActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory store.Memory
		used := time.Now().Add(-time.Hour).Round(0)
		for _, path := range []string{"/a", "/b"} {
			memory.Write(t.Context(), "", slipswitch.Change{Put: put("", path, "1").Route})
		}
		memory.Touch(t.Context(), store.LastUse{Key: slipswitch.Key{Path: "/a"}, At: used})
		s := &store.Sync{Source: &memory, Router: new(slipswitch.Router)}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go s.Run(ctx)
		s.Wait(ctx, 0)
		activity := func(path string) time.Time {
			e, _ := s.Router.Table().At(slipswitch.Key{Path: path})
			return e.LastActive()
		}
		if got := activity("/a"); !got.Equal(used) {
			t.Errorf("/a was used at %v; want %v", got, used)
		}
		if got := activity("/b"); !got.Equal(time.Now()) {
			t.Errorf("/b was used at %v; want now, as the store does not know", got)
		}
		time.Sleep(90 * time.Second)
		at := time.Now()
		e, _ := s.Router.Table().At(slipswitch.Key{Path: "/a"})
		e.Use()
		time.Sleep(time.Minute)
		kept := func() map[string]time.Time {
			kept := make(map[string]time.Time)
			for b := range memory.Watch(ctx, store.Position{}) {
				for _, a := range b.LastUses {
					kept[a.Key.Path] = a.At
				}
				break
			}
			return kept
		}
		if got := kept(); len(got) != 1 || !got["/a"].Equal(at) {
			t.Errorf("kept %v; want /a at %v", got, at)
		}
		// Another gateway's activity comes in, and is not written back.
		elsewhere := time.Now()
		memory.Touch(ctx, store.LastUse{Key: slipswitch.Key{Path: "/b"}, At: elsewhere})
		synctest.Wait()
		if got := activity("/b"); !got.Equal(elsewhere) {
			t.Errorf("/b was used at %v; want %v", got, elsewhere)
		}
		revision := s.Status().Revision
		time.Sleep(5 * time.Minute)
		if got := s.Status().Revision; got != revision {
			t.Errorf("revision %d; want %d: nothing to write", got, revision)
		}
	})
}

// A failing store is a memory in which activity cannot be kept at first.
type failing struct {
	store.Memory
	failures int
}

func (f *failing) Touch(ctx context.Context, activity ...store.LastUse) error {
	if f.failures > 0 {
		f.failures--
		return store.ErrUnavailable
	}
	return f.Memory.Touch(ctx, activity...)
}

// Activity that could not be written is written the next time.
func TestSyncActivityInOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{failures: 2}
		s := &store.Sync{Source: f, Router: new(slipswitch.Router)}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go s.Run(ctx)
		if _, err := s.Apply(ctx, "", slipswitch.Change{Put: put("", "/a", "1").Route}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		used := time.Now()
		e, _ := s.Router.Table().At(slipswitch.Key{Path: "/a"})
		e.Use()
		time.Sleep(4 * time.Minute)
		for b := range f.Watch(ctx, store.Position{}) {
			if len(b.LastUses) != 1 || !b.LastUses[0].At.Equal(used) {
				t.Errorf("kept %v; want /a at %v", b.LastUses, used)
			}
			break
		}
	})
}

// What Route does to routes is this gateway's own, and done to each.
func TestSyncRoute(t *testing.T) {
	m := new(store.Memory)
	s := &store.Sync{Source: m, Router: new(slipswitch.Router), Route: func(r *slipswitch.Route) { r.StripPath = true }}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- s.Run(ctx) }()
	key := slipswitch.Key{Path: "/a"}
	for _, upstream := range []string{"http://127.0.0.1:1", "http://127.0.0.1:2"} {
		route := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(upstream)}
		if _, err := s.Apply(ctx, "", slipswitch.Change{Put: &route}); err != nil {
			t.Fatal(err)
		}
		if e, ok := s.Router.Table().At(key); !ok || !e.Route().StripPath || e.Route().Upstreams[0].URL != upstream {
			t.Errorf("got %+v; want a stripping route to %s", e.Route(), upstream)
		}
		for batch, err := range m.Watch(ctx, store.Position{}) {
			if err != nil || len(batch.Entries) != 1 || batch.Entries[0].Route.StripPath {
				t.Errorf("got %+v, %v; want the store's route as it was put", batch, err)
			}
			break
		}
	}
	cancel()
	<-ran
}

// A route that is spoilt and mended again and again does not have all of the
// source read again each time.
func TestSyncAsksForTheOrderSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &store.Sync{WatchTimeout: time.Hour})
		r.full(1, put("x", "/a", "x"), put("y", "/a", "y"))
		spoilt := store.Entry{Owner: "x", Key: slipswitch.Key{Path: "/a"}, Err: errors.New("spoilt")}
		asked := 0
		revision := uint64(2)
		// say tells an entry, to a new watch if there is one.
		say := func(e store.Entry) {
			synctest.Wait()
			select {
			case r.watch = <-r.watches:
				asked++
				r.full(revision, put("y", "/a", "y"), spoilt)
			default:
			}
			r.change(revision, e)
			revision++
		}
		begin := time.Now()
		r.full(1, put("y", "/a", "y"), spoilt)
		for time.Since(begin) < time.Minute {
			say(put("x", "/a", "x"))
			say(spoilt)
			time.Sleep(100 * time.Millisecond)
		}
		if asked < 2 || asked > 7 {
			t.Errorf("asked %d times within a minute; want once in 10 s", asked)
		}
	})
}

// A noting store is a memory that notes what is written of activity.
type noting struct {
	store.Memory
	touched []store.LastUse
}

func (n *noting) Touch(ctx context.Context, activity ...store.LastUse) error {
	n.touched = append(n.touched, activity...)
	return n.Memory.Touch(ctx, activity...)
}

// Activity that a gateway has written whose clock is ahead keeps nobody from
// writing more.
func TestSyncActivityOfAClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source noting
		key := slipswitch.Key{Path: "/a"}
		source.Write(t.Context(), "", slipswitch.Change{Put: put("", "/a", "1").Route})
		source.Memory.Touch(t.Context(), store.LastUse{Key: key, At: time.Now().Add(24 * time.Hour)})
		s := &store.Sync{Source: &source, Router: new(slipswitch.Router)}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go s.Run(ctx)
		s.Wait(ctx, 0)
		e, _ := s.Router.Table().At(key)
		e.LastActive()
		time.Sleep(5*time.Minute + 30*time.Second)
		e.Use()
		used := time.Now()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := len(source.touched); n != 1 || !source.touched[0].At.Equal(used) {
			t.Errorf("written: %v; want one use, at %v", source.touched, used)
		}
	})
}
