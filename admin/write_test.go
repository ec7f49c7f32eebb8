package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
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
	return serve(t, &admin.Handler{
		Router: router,
		Write: func(ctx context.Context, owner string, changes ...slipswitch.Change) error {
			_, err := sync.Apply(ctx, owner, changes...)
			return err
		},
	}), routes
}

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

// With wait=all an answer waits for the other gateways, too.
func TestWaitAll(t *testing.T) {
	waited := 0
	s := serve(t, &admin.Handler{
		Write:   func(context.Context, string, ...slipswitch.Change) error { return nil },
		WaitAll: func(context.Context) error { waited++; return nil },
	})
	route := `{"path":"/a","upstreams":["http://up"]}`
	s.want(201, "PUT", "/v1/route?path=/a", route)
	if waited != 0 {
		t.Error("it waited unasked")
	}
	s.want(201, "PUT", "/v1/route?path=/a&wait=all", route)
	s.want(200, "POST", "/v1/batch?wait=all", `{"changes":[]}`)
	if waited != 2 {
		t.Errorf("it waited %d times; want 2", waited)
	}
	s.want(400, "POST", "/v1/batch?wait=some", `{"changes":[]}`)
}

// A confirmation is handed on, and what is wrong with it is the answer.
func TestConfirm(t *testing.T) {
	var failure error
	confirmed := 0
	s := serve(t, &admin.Handler{Confirm: func(context.Context) error { confirmed++; return failure }})
	s.want(204, "POST", "/v1/confirm", "")
	s.want(405, "GET", "/v1/confirm", "")
	s.want(400, "POST", "/v1/confirm?owner=a", "")
	if confirmed != 1 {
		t.Errorf("confirmed %d times; want 1", confirmed)
	}
	failure = &slipswitch.Error{Status: http.StatusServiceUnavailable, Reason: "no quorum"}
	if got := s.do("POST", "/v1/confirm", ""); got.status != 503 || !strings.Contains(got.body, "no quorum") {
		t.Errorf("got %d %s; want 503 with the reason", got.status, got.body)
	}
	serve(t, new(admin.Handler)).want(409, "POST", "/v1/confirm", "")
}

// A route can last for a time, where the store can do that.
func TestPutForATime(t *testing.T) {
	const route = `{"path":"/a","upstreams":["http://up"]}`
	var got time.Duration
	s := serve(t, &admin.Handler{
		Write: func(context.Context, string, ...slipswitch.Change) error { got = -1; return nil },
		WriteFor: func(_ context.Context, ttl time.Duration, owner string, changes ...slipswitch.Change) error {
			if owner != "" || len(changes) != 1 || changes[0].Put == nil || changes[0].Put.Path != "/a" {
				t.Errorf("got %q, %+v; want the route", owner, changes)
			}
			got = ttl
			return nil
		},
	})
	for _, tt := range []struct {
		query  string
		status int
		want   time.Duration
	}{
		{"&ttl=30s", 201, 30 * time.Second},
		{"&ttl=24h", 201, 24 * time.Hour},
		{"", 201, -1},
		{"&ttl=", 400, 0},
		{"&ttl=30", 400, 0},
		{"&ttl=999ms", 400, 0},
		{"&ttl=-30s", 400, 0},
		{"&ttl=25h", 400, 0},
		{"&ttl=30s&ttl=30s", 400, 0},
	} {
		got = 0
		s.want(tt.status, "PUT", "/v1/route?path=/a"+tt.query, route)
		if got != tt.want {
			t.Errorf("%s: written for %v; want %v", tt.query, got, tt.want)
		}
	}
	synced, routes := synced(t)
	synced.want(501, "PUT", "/v1/route?path=/a&ttl=30s", route)
	if at := first(t, routes).Revision; at != 0 {
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
	s := serve(t, &admin.Handler{Write: func(context.Context, string, ...slipswitch.Change) error {
		return &slipswitch.Error{Status: http.StatusServiceUnavailable, Reason: "the disk is full", RetryAfter: time.Second}
	}})
	got := s.do("PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://up"]}`)
	if got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "the disk is full") {
		t.Errorf("got %d %s; want 503 with the reason", got.status, got.body)
	}
}
