package admin

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/slipswitch/slipswitch/internal/journal"
)

const (
	maxRequest = 512 // bytes of a request that are logged
	maxKeys    = 10  // of one batch's changes
)

// An asker is a request and its sender.
type asker struct{ holder, address, request string }

type askerKey struct{}

// withAsker returns a request whose context has its asker, with the name of the
// token's holder.
func withAsker(r *http.Request, holder string) *http.Request {
	a := asker{holder, r.RemoteAddr, r.Method + " " + cmp.Or(r.RequestURI, r.URL.RequestURI())}
	if a.address == "" || a.address == "@" {
		a.address = "unix"
	}
	if len(a.request) > maxRequest {
		a.request = a.request[:maxRequest] + "…"
	}
	return r.WithContext(context.WithValue(r.Context(), askerKey{}, a))
}

func askerOf(ctx context.Context) asker {
	a, _ := ctx.Value(askerKey{}).(asker)
	return a
}

// String returns the asker as the origin of changes.
func (a asker) String() string {
	if a.holder != "" {
		return fmt.Sprintf("admin: %s by %s at %s", a.request, a.holder, a.address)
	}
	return fmt.Sprintf("admin: %s at %s", a.request, a.address)
}

// audit logs the changes of a request, or the failure of a store.
func (h *Handler) audit(ctx context.Context, level slog.Level, failed error, attrs ...slog.Attr) {
	h.logging.Do(func() { h.journal = journal.New(h.Logger) })
	a := askerOf(ctx)
	all := []slog.Attr{slog.String("request", a.request), slog.String("address", a.address)}
	if a.holder != "" {
		all = append(all, slog.String("by", a.holder))
	}
	all = append(all, attrs...)
	message := "admin: changed"
	if failed != nil {
		message = "admin: a change has failed"
		all = append(all, slog.String("error", failed.Error()))
	}
	h.journal.LogAttrs(ctx, level, message, all...)
}

// auditWrite logs a change that led to a version of the table, or failed. An
// invalid change is not logged, since it changes nothing.
func (h *Handler) auditWrite(ctx context.Context, c change, before, version, revision uint64, err error) {
	attrs := append(c.attrs(), slog.Uint64("version", version))
	if revision > 0 {
		attrs = append(attrs, slog.Uint64("revision", revision))
	}
	level := slog.LevelInfo
	switch {
	case err != nil:
		if status := problemOf(err, "").Status; status >= 400 && status < 500 {
			return
		}
	case version == before: // nothing has changed, as with a renewal
		level = slog.LevelDebug
	}
	h.audit(ctx, level, err, attrs...)
}

// attrs are the attributes that are logged for a change, besides its request.
func (c change) attrs() (attrs []slog.Attr) {
	if c.owner != nil {
		attrs = append(attrs, slog.String("owner", c.owner.Name))
	}
	var put, deleted []string
	for _, change := range c.changes[:min(len(c.changes), maxKeys)] {
		if change.Put != nil {
			put = append(put, change.Put.Key().String())
		} else if change.Delete != nil {
			deleted = append(deleted, change.Delete.String())
		}
	}
	if put != nil {
		attrs = append(attrs, slog.Any("put", put))
	}
	if deleted != nil {
		attrs = append(attrs, slog.Any("deleted", deleted))
	}
	if len(c.changes) > maxKeys {
		attrs = append(attrs, slog.Int("changes", len(c.changes)))
	}
	if c.replace {
		attrs = append(attrs, slog.Bool("replace", true))
	}
	return attrs
}
