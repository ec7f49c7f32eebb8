package storetest

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// Tests of what a store keeps.

func testEmpty(t *testing.T, s Subject) {
	st := open(t, s)
	if b := first(t, st, store.Position{}); !b.Full || len(b.Entries) > 0 || b.Identity == "" {
		t.Errorf("the first batch of an empty store is %+v; want a full one with nothing", b)
	}
	f := follow(t, st, store.Position{})
	f.wait(write(t, st, "", del("/none")))
	f.wait(write(t, st, ""))
	f.want()
}

func testFields(t *testing.T, s Subject) {
	st := open(t, s)
	want := slipswitch.Route{
		Host: "*.example.com", Path: "/a%40b/", Exact: true,
		Upstreams:    slipswitch.To("http://10.0.0.7:8080/base", "https://up.example.com"),
		StripPath:    true,
		UpstreamHost: "up.example.com",
		TLSProfile:   "inside",
		Protocols:    []string{"vnc"},
		OpaqueQuery:  "frames=no",
		MaxBody:      1 << 40,
		DialTimeout:  1, HandshakeTimeout: 2, HeaderTimeout: 3, StreamTimeout: time.Hour,
		StallTimeout: 5 * time.Minute, IdleTimeout: 90 * time.Second, LifeTimeout: 24 * time.Hour,
		PingEvery: 20 * time.Second, AckTimeout: 30 * time.Second,
		Labels: map[string]string{"team": "a", "": "ü<&>"},
		Meta:   json.RawMessage(`{"n":12345678901234567890,"x":[null,true]}`),
	}
	write(t, st, "chp", slipswitch.Change{Put: &want})
	b := first(t, st, store.Position{})
	if len(b.Entries) != 1 || b.Entries[0].Route == nil {
		t.Fatalf("got %+v; want one route", b)
	}
	if got := b.Entries[0]; got.Owner != "chp" || !got.Route.Equal(&want) {
		t.Errorf("got %+v of %q; want %+v of chp", got.Route, got.Owner, want)
	}
}

func testKeys(t *testing.T, s Subject) {
	st := open(t, s)
	f := follow(t, st, store.Position{})
	keys := []slipswitch.Key{
		{Path: "/"}, {Path: "/", Exact: true}, {Path: "//"}, {Path: "/a"}, {Path: "/a", Exact: true}, {Path: "/a/", Exact: true},
		{Path: "/a%2Fb"}, {Path: "/a/b"}, {Path: "/a%20b"}, {Path: "/a%3Fb"}, {Path: "/=a"}, {Path: "/é"}, {Path: "/a%2500"},
		{Host: "a.example.com", Path: "/"}, {Host: "*.example.com", Path: "/"}, {Host: "**.example.com", Path: "/"},
		{Host: "10.0.0.1", Path: "/a"}, {Host: "::1", Path: "/a"}, {Path: "/a\xffb"}, {Path: "/a%20active"},
	}
	var changes []slipswitch.Change
	for i, key := range keys {
		r := route(key.Path, i)
		r.Host, r.Exact = key.Host, key.Exact
		changes = append(changes, slipswitch.Change{Put: &r})
	}
	g := start(t, st)
	revision := write(t, st, "", changes...)
	f.wait(revision)
	if len(f.has) != len(keys) {
		t.Errorf("%d keys became %d: %v", len(keys), len(f.has), f.all())
	}
	g.wait(revision)
	if got := g.Router.Table().Len(); got != len(keys) || len(g.Status().Quarantined) > 0 {
		t.Errorf("%d keys became %d routes, and in quarantine %+v", len(keys), got, g.Status().Quarantined)
	}
	// Spellings of one key are one record.
	spelt := []slipswitch.Change{
		{Put: &slipswitch.Route{Path: "/%61/", Upstreams: slipswitch.To("http://other")}},
		{Delete: &slipswitch.Key{Host: "[0:0::1]", Path: "/%61"}},
		{Delete: &slipswitch.Key{Host: "A.EXAMPLE.com", Path: "/"}},
	}
	f.wait(write(t, st, "", spelt...))
	if len(f.has) != len(keys)-2 || f.has[":/a"] != "other" {
		t.Errorf("after changes by other spellings there are %v", f.all())
	}
	for i := range keys {
		changes[i] = slipswitch.Change{Delete: &keys[i]}
	}
	f.wait(write(t, st, "", changes...))
	f.want()
}

func testOwners(t *testing.T, s Subject) {
	st := open(t, s)
	f := follow(t, st, store.Position{})
	write(t, st, "", put("/a", 1))
	write(t, st, "chp", put("/a", 2))
	write(t, st, "a/b c%", put("/a", 3))
	f.wait(write(t, st, "chp", del("/a"), put("/b", 2)))
	f.want(":/a=up-1", "a/b c%:/a=up-3", "chp:/b=up-2")
}

func testRefusals(t *testing.T, s Subject) {
	st := open(t, s)
	write(t, st, "", put("/a", 1))
	bad := route("/m", 1)
	bad.Meta = json.RawMessage("{")
	for name, c := range map[string]slipswitch.Change{
		"neither":  {},
		"both":     {Put: put("/b", 1).Put, Delete: del("/b").Delete},
		"put":      put("/../b", 1),
		"delete":   del("no slash"),
		"bad JSON": {Put: &bad},
	} {
		if _, err := st.Write(t.Context(), "", put("/a", 2), c, del("/a")); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	f := follow(t, st, store.Position{})
	f.wait(1)
	f.want(":/a=up-1")
}

// The entries of a full batch stand in the order of their first puts.
func testOrder(t *testing.T, s Subject) {
	st := open(t, s)
	write(t, st, "z", put("/b", 1), put("/a", 1))
	write(t, st, "a", put("/a", 1))
	write(t, st, "m", put("/a", 1))
	write(t, st, "z", put("/b", 2), del("/a"))
	write(t, st, "a", put("/a", 2))
	write(t, st, "z", put("/a", 2))
	var got []string
	for _, e := range first(t, st, store.Position{}).Entries {
		got = append(got, e.Owner+":"+e.Key.Path)
	}
	want := []string{"z:/b", "a:/a", "m:/a", "z:/a"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v; want %v", got, want)
	}
}

func testReopen(t *testing.T, s Subject) {
	if s.Volatile {
		t.Skip("the store keeps nothing when it is closed")
	}
	st := open(t, s)
	write(t, st, "z", put("/b", 1), put("/c", 1))
	revision := write(t, st, "a", put("/b", 2))
	write(t, st, "z", del("/c"))
	before := first(t, st, store.Position{})
	closeStore(t, st)
	if _, err := st.Write(t.Context(), "", put("/d", 1)); err == nil {
		t.Error("a write to the closed store got no error")
	}
	for _, err := range st.Watch(t.Context(), store.Position{}) {
		if err == nil {
			t.Error("a watch of the closed store got a batch")
		}
		break
	}
	st = open(t, s)
	after := first(t, st, store.Position{})
	if after.Identity == before.Identity && after.Revision < revision || len(after.Entries) != 2 || after.Entries[0].Owner != "z" || after.Entries[1].Owner != "a" {
		t.Errorf("opened again, the store has %+v; want what it had, %+v", after, before)
	}
	f := follow(t, st, before.Position)
	f.has = map[string]string{"z:/b": "up-1", "a:/b": "up-2"} // a full batch also brings it
	write(t, st, "z", put("/b", 3))
	f.until("z:/b=up-3", func() bool { return f.has["z:/b"] == "up-3" })
	f.want("a:/b=up-2", "z:/b=up-3")
}

func testActivity(t *testing.T, s Subject) {
	st := open(t, s)
	active, ok := st.(store.ActivityStore)
	if !ok {
		t.Skip("the store keeps no activity")
	}
	write(t, st, "", put("/a", 1), put("/%62", 1))
	a, b := slipswitch.Key{Path: "/a"}, slipswitch.Key{Path: "/b"}
	now := time.Now().Truncate(time.Second)
	touch := func(activity ...store.LastUse) {
		t.Helper()
		if err := active.Touch(t.Context(), activity...); err != nil {
			t.Fatal(err)
		}
	}
	touch(store.LastUse{Key: a, At: now}, store.LastUse{Key: b, At: now.Add(-time.Hour)}, store.LastUse{Key: slipswitch.Key{Path: "/none"}, At: now})
	touch(store.LastUse{Key: a, At: now.Add(-time.Minute)}, store.LastUse{Owner: "other", Key: b, At: now})
	touch(store.LastUse{Key: b, At: now.Add(-time.Minute)})
	touch()
	if !s.Volatile {
		closeStore(t, st)
		st = open(t, s)
		active = st.(store.ActivityStore)
	}
	kept := func() map[slipswitch.Key]time.Time {
		kept := make(map[slipswitch.Key]time.Time)
		for _, a := range first(t, st, store.Position{}).LastUses {
			kept[a.Key] = a.At
		}
		return kept
	}
	if got := kept(); len(got) != 2 || !got[a].Equal(now) || !got[b].Equal(now.Add(-time.Minute)) {
		t.Errorf("kept %v; want the latest of each route", got)
	}
	write(t, st, "", put("/a", 2), del("/b"))
	write(t, st, "", put("/b", 2))
	if got := kept(); len(got) != 1 || !got[a].Equal(now) {
		t.Errorf("kept %v; want that of the route that has stayed", got)
	}
	// A watch says so at once.
	g := start(t, st)
	g.wait(0)
	table := g.Router.Table()
	later := time.Now()
	touch(store.LastUse{Key: a, At: later})
	g.wait(write(t, st, "", put("/c", 1)))
	entry, _ := g.Router.Table().At(a)
	if got := entry.LastActive(); !got.Equal(later) {
		t.Errorf("the router says %v; want %v", got, later)
	}
	if _, ok := table.At(a); !ok {
		t.Error("the route was touched")
	}
}

func testUnreadable(t *testing.T, s Subject) {
	if s.Plant == nil {
		t.Skip("nothing can be planted in the store")
	}
	st := open(t, s)
	write(t, st, "", put("/a", 1), put("/b", 1), put("/c", 1))
	write(t, st, "other", put("/b", 2))
	closeStore(t, st)
	s.Plant(t, "", slipswitch.Key{Path: "/b"}, `{"path":`)
	s.Plant(t, "", slipswitch.Key{Path: "/c"}, `{"path":"/elsewhere","upstreams":["http://up-9"]}`)
	st = open(t, s)
	g := start(t, st)
	g.wait(0)
	g.want(":/a=up-1", "other:/b=up-2")
	quarantined := g.Status().Quarantined
	if len(quarantined) != 2 || quarantined[0].Key.Path != "/b" || quarantined[1].Key.Path != "/c" {
		t.Errorf("in quarantine are %+v; want /b and /c", quarantined)
	}
	g.wait(write(t, st, "", put("/b", 3), del("/c")))
	g.until(func() bool { return g.at("/b") == ":/b=up-3" }) // it was put first
	g.want(":/a=up-1", ":/b=up-3", "other:/b=up-2")
	if got := g.Status().Quarantined; len(got) > 0 {
		t.Errorf("in quarantine are %+v; want none", got)
	}
}

// Fields of a later version are no error, and a put of this version keeps them.
func testUnknown(t *testing.T, s Subject) {
	if s.Plant == nil {
		t.Skip("nothing can be planted in the store")
	}
	st := open(t, s)
	write(t, st, "", put("/a", 1))
	closeStore(t, st)
	s.Plant(t, "", slipswitch.Key{Path: "/a"}, `{"path":"/a","upstreams":[{"url":"http://up-2","height":3}],"shade":{"of":"green"}}`)
	st = open(t, s)
	f := follow(t, st, store.Position{})
	f.wait(0)
	f.want(":/a=up-2")
	f.wait(write(t, st, "", put("/a", 3)))
	f.want(":/a=up-3")
	closeStore(t, st)
	if got, want := s.Peek(t, "", slipswitch.Key{Path: "/a"}), `{"path":"/a","shade":{"of":"green"},"upstreams":["http://up-3"]}`; got != want {
		t.Errorf("the store keeps %s; want %s", got, want)
	}
}
