package store_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// stuck is a log handler that hangs until it is closed.
type stuck chan struct{}

func (s stuck) Enabled(context.Context, slog.Level) bool { return true }
func (s stuck) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s stuck) WithGroup(string) slog.Handler            { return s }

func (s stuck) Handle(context.Context, slog.Record) error {
	<-s
	return nil
}

// A logger that hangs holds up neither the routes nor Status.
func TestSyncStuckLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(stuck)
		defer close(release)
		r := newRig(t, &store.Sync{Logger: slog.New(release)})
		r.full(1, put("", "/a", "1"), put("", "/b", ":bad:"))
		r.want(":/a=1")
		r.change(2, put("", "/a", "2"), put("", "/c", ":bad:"))
		r.want(":/a=2")
		if q := r.Status().Quarantined; len(q) != 2 {
			t.Errorf("quarantined %+v; want two", q)
		}
	})
}

// Whoever reads the log knows which store took routes away, that one holds them
// back and why, and when the first routes are there.
func TestSyncLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t, &store.Sync{Name: "etcd:a", Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}}))})
		check := func(want ...string) {
			t.Helper()
			synctest.Wait()
			got := log.String()
			log.Reset()
			for _, want := range want {
				if !strings.Contains(got, want) {
					t.Errorf("logged %s; want %s", got, want)
				}
			}
			if len(want) == 0 && got != "" {
				t.Errorf("logged %s; want nothing", got)
			}
		}
		check(`level=INFO msg="store: waiting for the first routes" store=etcd:a`)
		r.full(1, append(many("a", 0, 3), many("b", 5, 8)...)...)
		check(`level=INFO msg="store: the routes are there" store=etcd:a routes=6 revision=1`)
		r.change(2, del("a", "/0001"), del("a", "/0002"), put("a", "/0001", "other"), del("b", "/none"), del("b", "/0005"))
		check(`level=INFO msg="store: routes deleted" store=etcd:a revision=2 owner=a routes=1 first=/0002`,
			`level=INFO msg="store: routes deleted" store=etcd:a revision=2 owner=b routes=1 first=/0005`)
		r.change(3, put("a", "/0001", "other"))
		check()
		broken := store.Entry{Where: "b.yaml", Err: errors.New("must be YAML")}
		r.change(4, broken, put("a", "/0001", "other"))
		check(`level=WARN msg="store: route in quarantine" store=etcd:a owner="" route="" where=b.yaml error="must be YAML"`)
		r.change(4, broken)
		check()
		r.change(4, store.Entry{Where: "b.yaml"})
		check(`level=INFO msg="store: route out of quarantine" store=etcd:a owner="" route="" where=b.yaml`)
		r.full(4)
		check(`level=WARN msg="store: deletions held back until they are confirmed" store=etcd:a revision=4 owner=a routes=2 for=5m0s because="the source is empty"`)
	})
}

// A gateway answers 503 where it finds no route, until each of its stores has been
// read, or is not waited for any more.
func TestSyncExpectsRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, new(store.Sync))
		p := &slipswitch.Proxy{Router: r.Router}
		defer p.Close()
		check := func(want int) {
			t.Helper()
			synctest.Wait()
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequest("GET", "/a", nil))
			if w.Code != want {
				t.Errorf("got %d; want %d", w.Code, want)
			}
		}
		check(503)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			(&store.Sync{Source: &script{make(chan *watch)}, Router: r.Router}).Run(ctx)
		}()
		r.fail <- errors.New("down")
		r.next()
		check(503)
		r.full(1)
		check(503)
		cancel()
		<-ended
		check(404)
		r.fail <- errors.New("down") // what is known once stays
		check(404)
		r.next()
	})
}
