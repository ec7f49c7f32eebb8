package journal_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/journal"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func done(t *testing.T, j *journal.Journal) {
	t.Helper()
	select {
	case <-j.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("not all is handed on")
	}
}

// plain is a logger without times.
func plain(b *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestJournal(t *testing.T) {
	var log bytes.Buffer
	j := journal.New(plain(&log))
	done(t, j)
	j.Debug("too low")
	j.With("a", 1).WithGroup("g").Info("one", "b", 2)
	j.Warn("two")
	done(t, j)
	if got, want := log.String(), "level=INFO msg=one a=1 g.b=2\nlevel=WARN msg=two\n"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

// Without a logger it is the default one of the moment.
func TestDefault(t *testing.T) {
	j := journal.New(nil)
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(plain(&log))
	j.Info("hello")
	done(t, j)
	if got, want := log.String(), "level=INFO msg=hello\n"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

// stuck is a handler that hangs until it is closed.
type stuck struct {
	slog.Handler
	until chan struct{}
}

func (s stuck) Enabled(ctx context.Context, l slog.Level) bool {
	<-s.until
	return s.Handler.Enabled(ctx, l)
}

// What is logged while the logger is stuck is bounded, and what is dropped is told.
func TestStuck(t *testing.T) {
	var log bytes.Buffer
	release := make(chan struct{})
	j := journal.New(slog.New(stuck{plain(&log).Handler(), release}))
	for i := range journal.Most + 5 {
		j.Info(fmt.Sprint("record ", i))
	}
	close(release)
	done(t, j)
	lines := strings.Split(log.String(), "\n")
	if got, want := len(lines), journal.Most+2; got != want {
		t.Fatalf("%d lines; want %d", got, want)
	}
	if got, want := lines[journal.Most-1], fmt.Sprintf(`level=INFO msg="record %d"`, journal.Most-1); got != want {
		t.Errorf("got %s; want %s", got, want)
	}
	if got := lines[journal.Most]; !strings.HasSuffix(got, "records=5") {
		t.Errorf("got %s; want how many were dropped", got)
	}
}

type panics struct{ slog.Handler }

func (panics) Handle(context.Context, slog.Record) error { panic("logger") }

func TestPanic(t *testing.T) {
	j := journal.New(slog.New(panics{slog.NewTextHandler(new(bytes.Buffer), nil)}))
	j.Info("one")
	j.Info("two")
	done(t, j)
}
