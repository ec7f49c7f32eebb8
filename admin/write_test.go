package admin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
	"github.com/slipswitch/slipswitch/store"
)

// synced serves an API that writes to a store in memory, which the router
// follows.
func synced(t *testing.T) (*server, *store.Memory) {
	routes := new(store.Memory)
	router := new(slipswitch.Router)
	sync := &store.Sync{Source: routes, Router: router}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); sync.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	if err := sync.Wait(ctx, 0); err != nil {
		t.Fatal(err)
	}
	return serve(t, &admin.Handler{Router: router, Stores: []admin.Store{sync}}), routes
}

// A shop is a store that only does what the test says.
type shop struct {
	apply   func(owner string, changes []slipswitch.Change) error
	lasts   time.Duration // of the last Apply; 0: for ever
	waited  []uint64      // for revisions
	confirm func() error
}

func (s *shop) Apply(_ context.Context, owner string, changes ...slipswitch.Change) (uint64, error) {
	s.lasts = 0
	if s.apply == nil {
		return 7, nil
	}
	return 7, s.apply(owner, changes)
}

func (s *shop) ApplyFor(ctx context.Context, ttl time.Duration, owner string, changes ...slipswitch.Change) (uint64, error) {
	revision, err := s.Apply(ctx, owner, changes...)
	s.lasts = ttl
	return revision, err
}

func (s *shop) WaitAll(_ context.Context, revision uint64) error {
	s.waited = append(s.waited, revision)
	return nil
}

func (s *shop) Confirm(context.Context) error { return s.confirm() }

// plain is a store that can do nothing but keep changes.
type plain struct{ admin.Store }

// What is answered is kept, and routed; what is refused is neither.
func TestWritesGoToTheStore(t *testing.T) {
	s, routes := synced(t)
	kept := func() (keys []string) {
		for batch, err := range routes.Watch(t.Context(), store.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range batch.Entries {
				keys = append(keys, e.Owner+e.Key.String())
			}
			return keys
		}
		return nil
	}
	for _, step := range []struct {
		method, path, body string
		status             int
		kept               string
	}{
		{"PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://up"]}`, 201, "/a"},
		{"PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://up"]}`, 200, "/a"},
		{"PUT", "/v1/route?path=/b", `{"path":"/b","upstreams":["gopher://up"]}`, 400, "/a"},
		{"POST", "/v1/batch", `{"changes":[{"put":{"path":"/b","upstreams":["http://up"]}},{"put":{"path":"/c","upstreams":["http://up"]}}]}`, 200, "/a /b /c"},
		{"POST", "/v1/batch", `{"changes":[{"delete":{"path":"/a"}},{"put":{"path":"/d","upstreams":["up"]}}]}`, 400, "/a /b /c"},
		{"POST", "/v1/batch", `{"changes":[{"put":{"path":"/b","upstreams":["up"]}}],"replace":true}`, 400, "/a /b /c"},
		{"POST", "/v1/batch", `{"changes":[{"put":{"path":"/%62","upstreams":["http://up"]}}],"replace":true}`, 200, "/b"},
		{"POST", "/api/routes/x", `{"target":"http://up"}`, 201, "/b chp/x"},
		{"DELETE", "/api/routes/x", ``, 204, "/b"},
		{"DELETE", "/api/routes/x", ``, 404, "/b"},
		{"DELETE", "/v1/route?path=/b", ``, 204, ""},
		{"DELETE", "/v1/route?path=/b", ``, 404, ""},
	} {
		got := s.do(step.method, step.path, step.body)
		if got.status != step.status {
			t.Errorf("%s %s %s: got %d %s; want %d", step.method, step.path, step.body, got.status, got.body, step.status)
		}
		if keys := strings.Join(kept(), " "); keys != step.kept {
			t.Errorf("after %s %s %s: the store has %q; want %q", step.method, step.path, step.body, keys, step.kept)
		}
	}
}

// Of many writers who have all seen one version, one wins: with a store, too.
func TestConditionalWritesToTheStore(t *testing.T) {
	s, _ := synced(t)
	s.do("PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://up"]}`)
	tag := s.do("GET", "/v1/route?path=/a", "").header.Get("ETag")
	var wg sync.WaitGroup
	won := make(chan bool, 20)
	for i := range 20 {
		wg.Go(func() {
			got := s.do("PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://up"],"maxBody":`+fmt.Sprint(i+1)+`}`, "If-Match: "+tag)
			won <- got.status == http.StatusOK
		})
	}
	wg.Wait()
	close(won)
	n := 0
	for ok := range won {
		if ok {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of 20 won; want 1", n)
	}
}

// A conditional change has the store to itself, but not for ever: where the router
// lags behind the store, others get their turn, or give up when they like.
func TestConditionalWriteWhileTheRouterLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lag := true
		h := &admin.Handler{Router: new(slipswitch.Router), Open: true, Logger: slog.New(slog.DiscardHandler)}
		h.Stores = []admin.Store{lagging(func(ctx context.Context) error {
			if !lag {
				return nil
			}
			<-ctx.Done()
			return fmt.Errorf("not routed yet: %w", ctx.Err())
		})}
		put := func(ctx context.Context, conditional bool) int {
			r := httptest.NewRequestWithContext(ctx, "PUT", "http://localhost/v1/route?path=/a", strings.NewReader(`{"path":"/a","upstreams":["http://up"]}`))
			r.Header.Set("Content-Type", "application/json")
			if conditional {
				r.Header.Set("If-None-Match", "*")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		begin := time.Now()
		var writers sync.WaitGroup
		check := func(who string, conditional bool, ctx context.Context, status int, after time.Duration) {
			writers.Go(func() {
				if got, took := put(ctx, conditional), time.Since(begin); got != status || took != after {
					t.Errorf("%s: got %d after %v; want %d after %v", who, got, took, status, after)
				}
			})
			synctest.Wait()
		}
		check("the first", true, t.Context(), 504, 30*time.Second)
		leaves, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		check("one that leaves", false, leaves, 504, 10*time.Second)
		lag = false
		check("the next", false, t.Context(), 201, 30*time.Second)
		writers.Wait()
	})
}

// lagging is a store that writes at once, and then waits.
type lagging func(ctx context.Context) error

func (l lagging) Apply(ctx context.Context, _ string, _ ...slipswitch.Change) (uint64, error) {
	return 7, l(ctx)
}

// A put that another owner's route shadows says so, and whose it is.
func TestShadowed(t *testing.T) {
	s := serve(t, new(admin.Handler))
	put(t, s.router, "team-a", slipswitch.Route{Path: "/a"})
	const a, b = `{"path":"/a","upstreams":["http://up"]}`, `{"path":"/b","upstreams":["http://up"]}`
	for _, tt := range []struct{ method, target, body, want string }{
		{"PUT", "/v1/route?path=/a", a, `"owner":"","shadowed":true,"shadowedBy":"team-a"`},
		{"PUT", "/v1/route?path=/b", b, `"owner":"","shadowed":false,"version"`},
		{"GET", "/v1/route?path=/a&owner=", "", `"shadowedBy":"team-a"`},
		{"POST", "/v1/batch", `{"changes":[{"put":` + b + `},{"put":` + a + `},{"delete":{"path":"/c"}}]}`, `{"version":3,"shadowed":[{"key":{"path":"/a"},"by":"team-a"}]}`},
		{"POST", "/v1/batch", `{"changes":[{"put":` + b + `}]}`, `{"version":3}`},
	} {
		if got := s.do(tt.method, tt.target, tt.body); !strings.Contains(got.body, tt.want) {
			t.Errorf("%s %s: got %s; want %s", tt.method, tt.target, got.body, tt.want)
		}
	}
}

// With wait=all an answer waits for the other gateways, too.
func TestWaitAll(t *testing.T) {
	routes := new(shop)
	s := serve(t, &admin.Handler{Stores: []admin.Store{routes}})
	route := `{"path":"/a","upstreams":["http://up"]}`
	s.want(201, "PUT", "/v1/route?path=/a", route)
	if routes.waited != nil {
		t.Error("it waited unasked")
	}
	s.want(201, "PUT", "/v1/route?path=/a&wait=all", route)
	s.want(200, "POST", "/v1/batch?wait=all", `{"changes":[]}`)
	if want := []uint64{7, 7}; !slices.Equal(routes.waited, want) {
		t.Errorf("it waited for %v; want %v, what was written", routes.waited, want)
	}
	s.want(400, "POST", "/v1/batch?wait=some", `{"changes":[]}`)
	alone := serve(t, &admin.Handler{Stores: []admin.Store{plain{routes}}}) // there is nobody else
	alone.want(201, "PUT", "/v1/route?path=/a&wait=all", route)
}

// A confirmation is handed on, and what is wrong with it is the answer.
func TestConfirm(t *testing.T) {
	var failure error
	confirmed := 0
	routes := &shop{confirm: func() error { confirmed++; return failure }}
	s := serve(t, &admin.Handler{Stores: []admin.Store{plain{routes}, routes, routes}})
	s.want(204, "POST", "/v1/confirm", "")
	s.want(405, "GET", "/v1/confirm", "")
	s.want(400, "POST", "/v1/confirm?owner=a", "")
	if confirmed != 2 {
		t.Errorf("confirmed %d times; want 2, once for each store that can", confirmed)
	}
	failure = fmt.Errorf("%w: no quorum", store.ErrUnavailable)
	if got := s.do("POST", "/v1/confirm", ""); got.status != 503 || !strings.Contains(got.body, "no quorum") || confirmed != 4 {
		t.Errorf("got %d %s after %d; want 503 with the reason, all having been asked", got.status, got.body, confirmed)
	}
	serve(t, new(admin.Handler)).want(409, "POST", "/v1/confirm", "")
	serve(t, &admin.Handler{Stores: []admin.Store{plain{routes}}}).want(409, "POST", "/v1/confirm", "")
}

// A route can last for a time, where the store can do that.
func TestPutForATime(t *testing.T) {
	const route = `{"path":"/a","upstreams":["http://up"]}`
	written := false
	routes := &shop{apply: func(owner string, changes []slipswitch.Change) error {
		if owner != "" || len(changes) != 1 || changes[0].Put == nil || changes[0].Put.Path != "/a" {
			t.Errorf("got %q, %+v; want the route", owner, changes)
		}
		written = true
		return nil
	}}
	s := serve(t, &admin.Handler{Stores: []admin.Store{routes}})
	for _, tt := range []struct {
		query  string
		status int
		want   time.Duration
	}{
		{"&ttl=30s", 201, 30 * time.Second},
		{"&ttl=24h", 201, 24 * time.Hour},
		{"", 201, 0},
		{"&ttl=", 400, 0},
		{"&ttl=30", 400, 0},
		{"&ttl=999ms", 400, 0},
		{"&ttl=-30s", 400, 0},
		{"&ttl=25h", 400, 0},
		{"&ttl=30s&ttl=30s", 400, 0},
	} {
		routes.lasts, written = 0, false
		s.want(tt.status, "PUT", "/v1/route?path=/a"+tt.query, route)
		if routes.lasts != tt.want || written != (tt.status == 201) {
			t.Errorf("%s: written %v for %v; want %v for %v", tt.query, written, routes.lasts, tt.status == 201, tt.want)
		}
	}
	for _, stores := range [][]admin.Store{nil, {plain{routes}}} {
		serve(t, &admin.Handler{Stores: stores}).want(501, "PUT", "/v1/route?path=/a&ttl=30s", route)
	}
	synced, memory := synced(t)
	synced.want(501, "PUT", "/v1/route?path=/a&ttl=30s", route)
	if at := first(t, memory).Revision; at != 0 {
		t.Errorf("the store is at revision %d; want nothing written", at)
	}
	s.want(400, "DELETE", "/v1/route?path=/a&ttl=30s", "")
}

// first returns all that a store has.
func first(t *testing.T, s store.Store) store.Batch {
	t.Helper()
	for batch, err := range s.Watch(t.Context(), store.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		return batch
	}
	t.Fatal("the watch has ended")
	return store.Batch{}
}

// What a store says about itself becomes the answer.
func TestStoreErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
	}{
		{store.ErrHeld, 202},
		{store.ErrTooLarge, 413},
		{store.ErrReadOnly, 409},
		{store.ErrNoLeases, 501},
		{store.ErrUnavailable, 503},
		{context.Canceled, 503},
		{context.DeadlineExceeded, 504},
		{fmt.Errorf("%w: %w", store.ErrHeld, context.DeadlineExceeded), 202},
		{&slipswitch.Error{Status: 507, Reason: "the disk is full"}, 507},
		{&slipswitch.Error{Status: 202, Reason: "the disk is full"}, 500},
		{&slipswitch.Error{Reason: "the disk is full"}, 500},
		{errors.New("other"), 500},
	} {
		routes := &shop{apply: func(string, []slipswitch.Change) error { return fmt.Errorf("the disk is full: %w", tt.err) }}
		s := serve(t, &admin.Handler{Stores: []admin.Store{routes}})
		got := s.do("PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://up"]}`)
		if got.status != tt.status || !strings.Contains(got.body, "the disk is full") {
			t.Errorf("%v: got %d %s; want %d with the reason", tt.err, got.status, got.body, tt.status)
		}
	}
}

// A gateway is not ready before its stores have been read, and tells of each.
func TestStoresBecomeReady(t *testing.T) {
	router := new(slipswitch.Router)
	first := &store.Sync{Source: new(store.Memory), Router: router}
	second := &store.Sync{Source: new(store.Memory), Router: router}
	s := serve(t, &admin.Handler{Router: router, Stores: []admin.Store{first, plain{second}, second}})
	run := func(sync *store.Sync) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); sync.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		if err := sync.Wait(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}
	check := func(readyz int, synced ...bool) {
		t.Helper()
		s.want(readyz, "GET", "/readyz", "")
		got := decode[struct {
			NotReady string
			Stores   []store.Status
		}](t, s.want(200, "GET", "/v1/status", ""))
		if len(got.Stores) != 2 || got.Stores[0].Synced != synced[0] || got.Stores[1].Synced != synced[1] || (got.NotReady == "") != (readyz == 200) {
			t.Errorf("got %+v; want synced %v", got, synced)
		}
	}
	check(503, false, false)
	run(first)
	check(503, true, false)
	run(second)
	check(200, true, true)
}
