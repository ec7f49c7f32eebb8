package slipswitch_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// What stores need of keys, routes and transactions.

func TestKeyCanonical(t *testing.T) {
	for _, tt := range []struct {
		key  slipswitch.Key
		want string
	}{
		{slipswitch.Key{Path: "/"}, "/"},
		{slipswitch.Key{Path: "/a/"}, "/a"},
		{slipswitch.Key{Path: "/a/", Exact: true}, "=/a/"},
		{slipswitch.Key{Path: "/", Exact: true}, "=/"},
		{slipswitch.Key{Path: "//"}, "//"},
		{slipswitch.Key{Path: "/a//"}, "/a//"},
		{slipswitch.Key{Host: "IDE.example.com", Path: "/%61@%40"}, "ide.example.com/a@@"},
		{slipswitch.Key{Host: "*.example.com", Path: "/a%2fb"}, "*.example.com/a%2Fb"},
		{slipswitch.Key{Host: "[::1]", Path: "/a%20b%3f%25%23"}, "[::1]/a%20b%3F%25%23"},
		{slipswitch.Key{Path: "/a%2541"}, "/a%2541"},
		{slipswitch.Key{Path: "/%c3%a9"}, "/é"},
		{slipswitch.Key{Path: "/a\xffb%ef%bf%bd"}, "/a%FFb%EF%BF%BD"},
	} {
		got, err := tt.key.Canonical()
		if err != nil || got.String() != tt.want {
			t.Errorf("%v: got %q, %v; want %q", tt.key, got, err, tt.want)
			continue
		}
		if again, err := got.Canonical(); err != nil || again != got {
			t.Errorf("%v: again: got %q, %v; want the same", tt.key, again, err)
		}
		if parsed, err := slipswitch.ParseKey(tt.want); err != nil || parsed != got {
			t.Errorf("ParseKey(%q): got %#v, %v; want %#v", tt.want, parsed, err, got)
		}
	}
	for _, bad := range []string{"", "a", "=", "a b/c", "host/a b", "host/..", "/%", "host:80/"} {
		if k, err := slipswitch.ParseKey(bad); err == nil {
			t.Errorf("ParseKey(%q): got %#v; want an error", bad, k)
		}
	}
	if _, err := (slipswitch.Key{Path: "/../a"}).Canonical(); err == nil {
		t.Error("a key with dot segments: got no error")
	}
}

func TestDecodeRoute(t *testing.T) {
	const later = `{"path":"/a","Upstreams":["http://a",{"url":"http://b","height":3}],"idleTimeout":"2m",
		"stripPath":false,"shade":{"of":["green"]},"maxBody":7,
		"onDelete":{"close":true,"after":"1m","shade":7},"check":{"path":"/b","shade":7}}`
	got, unknown, err := slipswitch.DecodeRoute([]byte(later))
	want := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://a", "http://b"), IdleTimeout: 2 * time.Minute, MaxBody: 7,
		OnDelete: slipswitch.ClosePolicy{Close: true, After: time.Minute}, Check: slipswitch.Check{Path: "/b"}}
	if err != nil || !got.Equal(&want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if len(unknown) != 1 || string(unknown["shade"]) != `{"of":["green"]}` {
		t.Errorf("unknown: got %s", unknown)
	}
	if _, unknown, err := slipswitch.DecodeRoute([]byte(`{"path":"/a","upstreams":["http://a"]}`)); err != nil || len(unknown) > 0 {
		t.Errorf("got %s, %v; want nothing unknown", unknown, err)
	}
	for _, bad := range []string{``, `[]`, `7`, `{"path":7}`, `{"path":"/a","shade":1,"idleTimeout":5}`, `{"path":"/a"} x`} {
		if _, _, err := slipswitch.DecodeRoute([]byte(bad)); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
	if err := json.Unmarshal([]byte(later), &got); err == nil {
		t.Error("strict: got no error")
	}
}

func TestRouterCheck(t *testing.T) {
	var router slipswitch.Router
	good := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://a")}
	bad := slipswitch.Route{Path: "/b", Upstreams: slipswitch.To("ftp://b")}
	if err := router.Check(nil, slipswitch.Change{Put: &good}); err != nil {
		t.Error(err)
	}
	err := router.Check(nil, slipswitch.Change{Put: &good}, slipswitch.Change{Put: &bad})
	batch, ok := errors.AsType[*slipswitch.BatchError](err)
	if !ok || len(batch.Routes) != 1 || batch.Routes[0].Index != 1 {
		t.Errorf("got %v; want one error, at change 1", err)
	}
	if table := router.Table(); table.Len() != 0 || table.Version() != 0 {
		t.Errorf("got version %d with %d routes; want nothing changed", table.Version(), table.Len())
	}
	version, err := router.Update(func(tx *slipswitch.Txn) error { // in the middle of a change: it waits for none
		tx.Put(good)
		return router.Check(nil, slipswitch.Change{Delete: new(good.Key())})
	})
	if table := router.Table(); err != nil || table.Len() != 1 || table.Version() != version {
		t.Errorf("got version %d with %d routes, %v; want the one that was put", table.Version(), table.Len(), err)
	}
	err = router.Check(nil, slipswitch.Change{Delete: new(good.Key())}, slipswitch.Change{Put: &good})
	if table := router.Table(); err != nil || table.Len() != 1 || table.Version() != version {
		t.Errorf("got version %d with %d routes, %v; want nothing changed", table.Version(), table.Len(), err)
	}
}

func TestTxnHas(t *testing.T) {
	var router slipswitch.Router
	var got [4]bool
	_, err := router.Update(func(tx *slipswitch.Txn) error {
		first, second := tx.As(&slipswitch.Owner{Name: "first"}), tx.As(&slipswitch.Owner{Name: "second"})
		first.Put(slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://a")})
		second.Put(slipswitch.Route{Path: "/%61", Upstreams: slipswitch.To("http://a")})
		got = [4]bool{first.Has(slipswitch.Key{Path: "/%61"}), second.Has(slipswitch.Key{Path: "/a/"}),
			tx.Has(slipswitch.Key{Path: "/a"}), first.Has(slipswitch.Key{Path: "a"})}
		return nil
	})
	if want := [4]bool{true, true, false, false}; err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestTxnActive(t *testing.T) {
	var router slipswitch.Router
	used := time.Now().Add(-time.Hour).Truncate(time.Second)
	apply := func(change func(tx *slipswitch.Txn)) {
		t.Helper()
		if _, err := router.Update(func(tx *slipswitch.Txn) error { change(tx); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	apply(func(tx *slipswitch.Txn) {
		for i := range 2 {
			tx.Put(slipswitch.Route{Path: fmt.Sprint("/", i), Upstreams: slipswitch.To("http://a")})
		}
		tx.Use(slipswitch.Key{Path: "/0"}, used)
		tx.Use(slipswitch.Key{Path: "/0"}, used.Add(-time.Hour))
		tx.Use(slipswitch.Key{Path: "/none"}, used)
	})
	activity := func(path string) time.Time {
		entry, _ := router.Table().At(slipswitch.Key{Path: path})
		return entry.LastActive()
	}
	if got := activity("/0"); !got.Equal(used) {
		t.Errorf("a restored route: got %v; want %v", got, used)
	}
	if got := activity("/1"); time.Since(got) > time.Minute {
		t.Errorf("a new route: got %v; want now", got)
	}
	version := router.Table().Version()
	later := used.Add(time.Minute)
	apply(func(tx *slipswitch.Txn) { tx.Use(slipswitch.Key{Path: "/0"}, later) })
	if got := activity("/0"); !got.Equal(later) || router.Table().Version() != version {
		t.Errorf("got %v, version %d; want %v, %d", got, router.Table().Version(), later, version)
	}
}
