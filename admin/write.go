package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/slipswitch/slipswitch"
	"golang.org/x/sync/semaphore"
)

// A change is the change that a request asks for.
type change struct {
	owner   *slipswitch.Owner
	replace bool // delete the owner's other routes
	changes []slipswitch.Change

	// check, if set, returns why the change must not be made to the table as it is
	// then. conditional means that no other change may come in between.
	check       func() *problem
	conditional bool

	all bool          // wait until all gateways have it
	ttl time.Duration // after which it is deleted unless it is renewed. Zero means never
}

// maxWait is how long a request waits for other gateways, and blocks other
// requests.
const maxWait = 30 * time.Second

const maxWriting = 1 << 30 // changes that are written to the store at a time

// waitsForAll parses the parameter wait.
func waitsForAll(query url.Values) (bool, *problem) {
	wait, wrong := oneOf(query, "wait", "all")
	return wait != "", wrong
}

// lasts parses the parameter ttl.
func (h *Handler) lasts(query url.Values) (time.Duration, *problem) {
	if !query.Has("ttl") {
		return 0, nil
	}
	ttl, err := time.ParseDuration(query.Get("ttl"))
	if err != nil || ttl < time.Second || ttl > 24*time.Hour {
		return 0, badRequest("ttl", query.Get("ttl"), "must be a time from 1s to 24h, such as 30s")
	}
	if len(h.Stores) > 0 {
		if _, ok := h.Stores[0].(leaseStore); ok {
			return ttl, nil
		}
	}
	return 0, &problem{Status: http.StatusNotImplemented, Text: "ttl needs routes that are kept in a store with leases, such as etcd"}
}

// write makes a change in the store or the router, and returns the version of a
// table that has it.
func (h *Handler) write(ctx context.Context, c change) (version uint64, err error) {
	before := h.Router.Table().Version()
	version, revision, err := h.make(ctx, c)
	h.auditWrite(ctx, c, before, version, revision, err)
	return version, err
}

// make makes a change. It also returns the revision of the store, if there is
// one.
func (h *Handler) make(ctx context.Context, c change) (version, revision uint64, err error) {
	if len(h.Stores) == 0 {
		version, err = h.Router.Update(func(tx *slipswitch.Txn) error {
			if c.check != nil {
				if wrong := c.check(); wrong != nil {
					return wrong
				}
			}
			tx.From(askerOf(ctx).String())
			tx = tx.As(c.owner)
			if c.replace {
				tx.Clear()
			}
			tx.Apply(c.changes...)
			return nil
		})
		return version, 0, err
	}
	if version, revision, err = h.keep(ctx, c); err != nil || !c.all {
		return version, revision, err
	}
	if shared, ok := h.Stores[0].(sharedStore); ok {
		ctx, cancel := context.WithTimeout(ctx, maxWait)
		defer cancel()
		err = shared.WaitAll(ctx, revision)
	}
	return version, revision, err
}

// keep writes a change to the store. A conditional change has the store to itself
// until the table has the change, but for at most maxWait, even if the router is
// behind the store: other changes wait for it.
func (h *Handler) keep(ctx context.Context, c change) (version, revision uint64, err error) {
	share := int64(1) // a store can write many changes at once
	if c.conditional || c.replace {
		share = maxWriting
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxWait)
		defer cancel()
	}
	h.writing.once.Do(func() { h.writing.Weighted = semaphore.NewWeighted(maxWriting) })
	if err := h.writing.Acquire(ctx, share); err != nil {
		return 0, 0, fmt.Errorf("other changes are being written: %w", err)
	}
	defer h.writing.Release(share)
	if c.check != nil {
		if wrong := c.check(); wrong != nil {
			return 0, 0, wrong
		}
	}
	if c.replace {
		if err := h.Router.Check(c.owner, c.changes...); err != nil {
			return 0, 0, err // before the deletions shift the indexes in the error
		}
		c.changes = append(h.deletions(c), c.changes...)
	}
	name := ""
	if c.owner != nil {
		name = c.owner.Name
	}
	if c.ttl > 0 {
		revision, err = h.Stores[0].(leaseStore).ApplyFor(ctx, c.ttl, name, c.changes...)
	} else {
		revision, err = h.Stores[0].Apply(ctx, name, c.changes...)
	}
	return h.Router.Table().Version(), revision, err
}

// confirm answers POST /v1/confirm.
func (h *Handler) confirm(w http.ResponseWriter, r *http.Request) *problem {
	if _, wrong := parameters(r); wrong != nil {
		return wrong
	}
	braked := false
	var failed error // if one store fails, the others are confirmed all the same
	for _, s := range h.Stores {
		if s, ok := s.(brakedStore); ok {
			braked = true
			failed = errors.Join(failed, s.Confirm(r.Context()))
		}
	}
	if !braked {
		return &problem{Status: http.StatusConflict, Text: "the routes are in no store: nothing is held back"}
	}
	h.audit(r.Context(), slog.LevelInfo, failed, slog.Uint64("version", h.Router.Table().Version()))
	if failed != nil {
		return problemOf(failed, "the confirmation")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// deletions returns deletions of the routes that a replacement does not put.
func (h *Handler) deletions(c change) (deletions []slipswitch.Change) {
	put := make(map[slipswitch.Key]bool, len(c.changes))
	for _, change := range c.changes {
		if change.Put != nil {
			key, _ := change.Put.Key().Canonical()
			put[key] = true
		}
	}
	for e := range h.Router.Table().All() {
		key, err := e.Key().Canonical()
		if err == nil && e.Owner == h.owner() && !put[key] {
			deletions = append(deletions, slipswitch.Change{Delete: &key})
		}
	}
	return deletions
}
