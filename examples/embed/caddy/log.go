package caddyslipswitch

import (
	"context"
	"log/slog"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap/exp/zapslog"
)

// A currentLog writes to Caddy's log as currently configured. A reload may close
// the log with which a Proxy was created.
type currentLog struct {
	with func(slog.Handler) slog.Handler // nil: nothing is added
}

func (l currentLog) handler() slog.Handler {
	var h slog.Handler = zapslog.NewHandler(caddy.Log().Core(), zapslog.WithName("slipswitch"))
	if l.with != nil {
		h = l.with(h)
	}
	return h
}

func (l currentLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.handler().Enabled(ctx, level)
}

func (l currentLog) Handle(ctx context.Context, record slog.Record) error {
	return l.handler().Handle(ctx, record)
}

func (l currentLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return l.and(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (l currentLog) WithGroup(name string) slog.Handler {
	return l.and(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (l currentLog) and(add func(slog.Handler) slog.Handler) slog.Handler {
	if l.with == nil {
		return currentLog{add}
	}
	return currentLog{func(h slog.Handler) slog.Handler { return add(l.with(h)) }}
}
