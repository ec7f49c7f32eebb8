package slipswitch_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

func to(path string, urls ...string) slipswitch.Route {
	return slipswitch.Route{Path: path, Upstreams: slipswitch.To(urls...)}
}

func TestNoChangePublishesNothing(t *testing.T) {
	var router slipswitch.Router
	put(t, &router, to("/a", "http://a"), to("/b", "http://b"))
	table := router.Table()
	for name, change := range map[string]func(*slipswitch.Txn) error{
		"nothing":        func(*slipswitch.Txn) error { return nil },
		"an equal put":   func(tx *slipswitch.Txn) error { tx.Put(to("/a", "http://a")); return nil },
		"there and back": func(tx *slipswitch.Txn) error { tx.Put(to("/a", "http://x")); tx.Put(to("/a", "http://a")); return nil },
		"put and delete": func(tx *slipswitch.Txn) error {
			tx.Put(to("/c", "http://c"))
			tx.Delete(slipswitch.Key{Path: "/c"})
			return nil
		},
		"delete and put": func(tx *slipswitch.Txn) error {
			tx.Delete(slipswitch.Key{Path: "/b"})
			tx.Put(to("/b", "http://b"))
			return nil
		},
		"replace all by all": func(tx *slipswitch.Txn) error {
			tx.Clear()
			tx.Put(to("/b", "http://b"))
			tx.Put(to("/a", "http://a"))
			return nil
		},
		"delete what is not": func(tx *slipswitch.Txn) error {
			if tx.Delete(slipswitch.Key{Path: "/c"}) {
				t.Error("Delete reports a route that is not there")
			}
			return nil
		},
		"an error": func(tx *slipswitch.Txn) error { tx.Clear(); return errors.New("no") },
	} {
		version, _ := router.Update(change)
		if version != 1 || router.Table() != table {
			t.Errorf("%s: got another table, version %d", name, version)
		}
	}
	select {
	case <-table.Replaced():
		t.Error("Replaced, but it was not")
	default:
	}
	if version, err := router.Update(func(tx *slipswitch.Txn) error { tx.Delete(slipswitch.Key{Path: "/a"}); return nil }); version != 2 || err != nil {
		t.Errorf("got version %d, %v; want 2", version, err)
	}
	<-table.Replaced()
	if router.Table().Len() != 1 {
		t.Errorf("%d routes; want 1", router.Table().Len())
	}
}

// Guarantee 3.
func TestBatchIsAtomic(t *testing.T) {
	var router slipswitch.Router
	batch := func(n int) func(*slipswitch.Txn) error {
		return func(tx *slipswitch.Txn) error {
			for i := range 50 {
				tx.Put(to(fmt.Sprintf("/%d", i), fmt.Sprintf("http://up-%d", n)))
			}
			return nil
		}
	}
	router.Update(batch(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				table := router.Table()
				first, err := table.Lookup("h", "/0")
				for i := range 50 {
					m, err2 := table.Lookup("h", fmt.Sprintf("/%d/x", i))
					if err != nil || err2 != nil || m.Route().Upstreams[0] != first.Route().Upstreams[0] || m.Version != table.Version() {
						t.Errorf("a table of two batches: %v %v", first.Route(), m.Route())
						return
					}
				}
			}
		})
	}
	for n := range 300 {
		if _, err := router.Update(batch(n + 1)); err != nil {
			t.Error(err)
		}
		router.Update(func(tx *slipswitch.Txn) error { // one that fails half-way
			tx.Put(to("/0", "http://half"))
			tx.Put(to("/1", "gopher://half"))
			return nil
		})
	}
	close(stop)
	wg.Wait()
}

// Guarantee 4.
func TestLookupAllocatesNothing(t *testing.T) {
	var router slipswitch.Router
	put(t, &router, to("/webapp-01/ide-7", "http://a"))
	for i := range 1000 {
		put(t, &router, slipswitch.Route{Host: fmt.Sprintf("ide-%d.example.com", i), Path: "/", Upstreams: slipswitch.To("http://a")})
	}
	put(t, &router, slipswitch.Route{Host: "**.example.net", Path: "/a@b", Upstreams: slipswitch.To("http://a")})
	for _, test := range []struct{ host, path string }{
		{"ide.example.com", "/webapp-01/ide-7/static/app.js"},
		{"ide.example.com", "/webapp-01/ide-7" + strings.Repeat("/%6eode_modules", 40)},
		{"IDE-7.Example.com:8443", "/x"},
		{"a.b.c.example.net.", "/a%40b/x"},
		{"[2001:DB8::1]:8080", "/webapp-01/ide-7"},
		{"nobody", "/nothing"},
		{strings.Repeat("a.", 120) + "com", "/nothing" + strings.Repeat("/a", 2000)},
	} {
		if n := testing.AllocsPerRun(100, func() { router.Lookup(test.host, test.path) }); n != 0 {
			t.Errorf("Lookup(%.40q, %.40q) allocates %v times", test.host, test.path, n)
		}
	}
}

func TestOwners(t *testing.T) {
	var router slipswitch.Router
	first, second := &slipswitch.Owner{Name: "first"}, &slipswitch.Owner{Name: "second"}
	change := func(owner *slipswitch.Owner, changes ...slipswitch.Change) {
		t.Helper()
		if _, err := router.Apply(owner, changes...); err != nil {
			t.Fatal(err)
		}
	}
	stands := func(want string) {
		t.Helper()
		m, err := router.Lookup("", "/a")
		if got := fmt.Sprint(err); err == nil {
			got = m.Route().Upstreams[0].URL
			if got != want {
				t.Errorf("got %s; want %s", got, want)
			}
		} else if want != "" {
			t.Errorf("got %s; want %s", got, want)
		}
	}
	a, b, c := to("/a", "http://first"), to("/a", "http://second"), to("/a", "http://second/new")
	change(first, slipswitch.Change{Put: &a})
	change(second, slipswitch.Change{Put: &b})
	stands("http://first")
	var entries []string
	for e := range router.Table().All() {
		entries = append(entries, fmt.Sprint(e.Owner, " ", e.Shadowed))
	}
	if want := []string{"first false", "second true"}; !slices.Equal(entries, want) {
		t.Errorf("got %q; want %q", entries, want)
	}
	change(second, slipswitch.Change{Put: &c}) // shadowed, and replaced as such
	change(second, slipswitch.Change{Delete: &slipswitch.Key{Path: "/b"}})
	stands("http://first")
	change(first, slipswitch.Change{Delete: &slipswitch.Key{Path: "/a"}})
	stands("http://second/new") // it follows
	change(first, slipswitch.Change{Put: &a})
	stands("http://second/new")
	change(first, slipswitch.Change{Delete: &slipswitch.Key{Path: "/a"}})
	change(second, slipswitch.Change{Delete: &slipswitch.Key{Path: "/a"}})
	stands("")
}

func TestOwnerLimits(t *testing.T) {
	owner := &slipswitch.Owner{
		Name:  "team",
		Hosts: []string{"**.team.example", "team.example"}, Paths: []string{"/apps", "/tools/x"}, Upstreams: []string{"10.0.0.0/8", "db.team:80"},
	}
	for _, test := range []struct {
		host, path, upstream, field string
	}{
		{"team.example", "/apps", "http://10.1.2.3:80", ""},
		{"a.team.example", "/apps/1", "http://10.1.2.3", ""},
		{"*.team.example", "/tools/x/", "http://db.team", ""},
		{"**.a.team.example", "/apps", "http://10.1.2.3", ""},
		{"example", "/apps", "http://10.1.2.3", "host"},
		{"", "/apps", "http://10.1.2.3", "host"},
		{"evilteam.example", "/apps", "http://10.1.2.3", "host"},
		{"team.example", "/apps2", "http://10.1.2.3", "path"},
		{"team.example", "/", "http://10.1.2.3", "path"},
		{"team.example", "/apps", "http://11.1.2.3", "upstreams[0]"},
		{"team.example", "/apps", "http://db.team:81", "upstreams[0]"},
		{"team.example", "/apps", "http://169.254.169.254", "upstreams[0]"},
	} {
		var router slipswitch.Router
		_, err := router.Apply(owner, slipswitch.Change{Put: &slipswitch.Route{Host: test.host, Path: test.path, Upstreams: slipswitch.To(test.upstream)}})
		got := ""
		if batch, ok := errors.AsType[*slipswitch.BatchError](err); ok && len(batch.Routes) == 1 {
			got = batch.Routes[0].Field
		} else if err != nil {
			got = err.Error()
		}
		if got != test.field {
			t.Errorf("%s%s to %s: got %q refused; want %q", test.host, test.path, test.upstream, got, test.field)
		}
	}
}

func TestPaging(t *testing.T) {
	var router slipswitch.Router
	var want []string
	for i := range 200 {
		for _, host := range []string{"", "a.x", "**.x"} {
			for _, exact := range []bool{false, true} {
				r := slipswitch.Route{Host: host, Path: fmt.Sprintf("/p/%d", i%67*3), Exact: exact, Upstreams: slipswitch.To("http://up")}
				put(t, &router, r)
			}
		}
	}
	for e := range router.Table().All() {
		want = append(want, e.Key().String())
	}
	if len(want) != router.Table().Len() || len(want) != 67*6 {
		t.Fatalf("All yields %d of %d", len(want), router.Table().Len())
	}
	for size := 1; size < 60; size += 7 {
		var got []string
		page := router.Table().All()
		for more := true; more; {
			more = false
			n := 0
			for e := range page {
				got = append(got, e.Key().String())
				if n++; n == size {
					page, more = router.Table().After(e.Key()), true
					break
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d yield %d entries; want the %d of All, in order", size, len(got), len(want))
		}
	}
	if n := len(slices.Collect(router.Table().After(slipswitch.Key{Path: "/p/1", Exact: true}))); n == 0 || n == len(want) {
		t.Errorf("After a key that is not there yields %d", n)
	}
}

func TestActivityOutlivesReplacements(t *testing.T) {
	var router slipswitch.Router
	put(t, &router, to("/a", "http://a"))
	at := func() time.Time {
		e, ok := router.Table().At(slipswitch.Key{Path: "/a"})
		if !ok {
			t.Fatal("no route")
		}
		return e.LastActive()
	}
	first := at()
	for at().Equal(first) {
		e, _ := router.Table().At(slipswitch.Key{Path: "/a"})
		e.Use()
	}
	used := at()
	put(t, &router, to("/a", "http://b"))
	if at().Before(used) {
		t.Errorf("activity went back from %v to %v", used, at())
	}
}

// Old tables can be collected: nothing that lives on holds them.
func TestOldTablesAreFreed(t *testing.T) {
	var router slipswitch.Router
	put(t, &router, to("/a", "http://a"))
	var freed atomic.Int32
	for i := range 10 {
		runtime.AddCleanup(router.Table(), func(int) { freed.Add(1) }, i)
		put(t, &router, to("/b", fmt.Sprintf("http://b%d", i)))
	}
	for range 100 {
		if runtime.GC(); freed.Load() == 10 {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d of 10 old tables were freed", freed.Load())
}

// The example of a lookup during changes, as its users have it: run with -race.
func ExampleRouter() {
	var router slipswitch.Router
	version, err := router.Update(func(tx *slipswitch.Txn) error {
		tx.Put(slipswitch.Route{Host: "ide.example.com", Path: "/ide-7", Upstreams: slipswitch.To("http://10.0.0.7:8080")})
		tx.Put(slipswitch.Route{Host: "*.ide.example.com", Path: "/", Upstreams: slipswitch.To("http://10.0.0.9:8080")})
		return nil
	})
	fmt.Println(version, err)
	for _, target := range [][2]string{{"ide.example.com", "/ide-7/"}, {"ide.example.com", "/ide-70"}, {"b.ide.example.com", "/"}} {
		match, err := router.Lookup(target[0], target[1])
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(match.Key(), match.Route().Upstreams[0].URL)
	}
	// Output:
	// 1 <nil>
	// ide.example.com/ide-7 http://10.0.0.7:8080
	// slipswitch: no route
	// *.ide.example.com/ http://10.0.0.9:8080
}

// What a Proxy cannot do is refused where it is put, and says what to do.
func TestProxyValidates(t *testing.T) {
	bare := new(slipswitch.Proxy)
	able := &slipswitch.Proxy{
		TLSProfiles: map[string]*tls.Config{"inside": {}, "": {}},
		Resolver:    new(slipswitch.Resolver),
	}
	for _, test := range []struct {
		proxy      *slipswitch.Proxy
		tlsProfile string
		resolve    bool
		want       string
	}{
		{bare, "", false, ""},
		{bare, "inside", false, `tlsProfile "inside" must be left out: this gateway has no TLS profiles`},
		{bare, "", true, `resolve "true" must be false: this gateway has no Resolver; name the upstreams`},
		{able, "inside", true, ""},
		{able, "", true, ""},
		{able, "outside", false, `tlsProfile "outside" must be one of this gateway's TLS profiles, or left out: ["" "inside"]`},
	} {
		router := slipswitch.Router{Validate: test.proxy.Validate}
		r := slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("https://a"), TLSProfile: test.tlsProfile, Resolve: test.resolve}
		change := slipswitch.Change{Put: &r}
		_, err := router.Apply(nil, change)
		for _, err := range []error{err, router.Check(nil, change)} {
			got := ""
			if e, ok := errors.AsType[*slipswitch.RouteError](err); ok {
				got = fmt.Sprintf("%s %q %s", e.Field, e.Value, e.Want)
			}
			if got != test.want || (router.Table().Len() == 1) != (test.want == "") {
				t.Errorf("%+v: got %q, %d routes; want %q", test, got, router.Table().Len(), test.want)
			}
		}
	}
	// An error of any type refuses, and nobody is asked about what is invalid anyway.
	router := slipswitch.Router{Validate: func(r *slipswitch.Route) error { return errors.New("must be " + r.Path) }}
	for path, want := range map[string]string{"/a": "must be /a", "a": "must begin with /"} {
		_, err := router.Apply(nil, slipswitch.Change{Put: &slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://a")}})
		batch, _ := errors.AsType[*slipswitch.BatchError](err)
		if batch == nil || len(batch.Routes) != 1 || batch.Routes[0].Want != want {
			t.Errorf("%s: got %v; want %q", path, err, want)
		}
	}
}

// While routes are still to come, none is not yet 404.
func TestExpectedRoutes(t *testing.T) {
	var log logBuffer
	p := &slipswitch.Proxy{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	u := startUpstream(t, func(received) string { return ok("") })
	g := startGateway(t, p, route("/a", u))
	check := func(path string, status int, retry string) {
		t.Helper()
		if a := g.get(path); a.StatusCode != status || a.Header.Get("Retry-After") != retry {
			t.Errorf("%s: got %d, retry after %q; want %d, %q", path, a.StatusCode, a.Header.Get("Retry-After"), status, retry)
		}
	}
	check("/b", 404, "")
	first, second := g.Router.Expect(), g.Router.Expect()
	check("/b", 503, "1")
	check("/a", 200, "")
	check("/%zz", 400, "")
	first()
	first()
	check("/b", 503, "1")
	second()
	check("/b", 404, "")
	if got := log.String(); got != "" {
		t.Errorf("each request is logged: %s", got)
	}
}

func TestZeroMatch(t *testing.T) {
	match, err := new(slipswitch.Router).Lookup("ide.example.com", "/")
	if err != slipswitch.ErrNoRoute || match.Route() != nil || match.Key() != (slipswitch.Key{}) {
		t.Errorf("got %v, %v; want no route", match, err)
	}
	if value, ok := match.Label("n"); ok {
		t.Errorf("got the label %q; want none", value)
	}
	if e := (slipswitch.Entry{}); e.Route() != nil || e.Key() != (slipswitch.Key{}) {
		t.Errorf("got %v; want no route", e)
	}
}
