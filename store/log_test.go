package store_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

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
