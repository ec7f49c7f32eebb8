package admin

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// A routeItem is a route and its state.
type routeItem struct {
	Route      *slipswitch.Route `json:"route"`
	Owner      string            `json:"owner"`
	Shadowed   bool              `json:"shadowed"`
	ShadowedBy *string           `json:"shadowedBy,omitempty"` // the owner of the route that stands there
	Version    uint64            `json:"version"`
	LastActive time.Time         `json:"lastActive,omitzero"`
	Tunnels    int               `json:"tunnels"`

	Ejected []slipswitch.Ejection `json:"ejected,omitempty"` // by this gateway
}

func (h *Handler) itemOf(e slipswitch.Entry) routeItem {
	item := routeItem{Route: e.Route(), Owner: e.Owner, Shadowed: e.Shadowed, Version: e.Version, LastActive: lastActive(e), Tunnels: e.Tunnels()}
	if e.Shadowed {
		item.ShadowedBy = h.shadows(e.Key())
	}
	if h.Proxy != nil {
		item.Ejected = h.Proxy.Ejections(e)
	}
	return item
}

// shadows returns the owner of the route that stands at a key.
func (h *Handler) shadows(key slipswitch.Key) *string {
	standing, ok := h.Router.Table().At(key)
	if !ok {
		return nil
	}
	return &standing.Owner
}

// A shadowed route was put, but has no effect until another owner's route is
// deleted.
type shadowed struct {
	Key slipswitch.Key `json:"key"`
	By  string         `json:"by"`
}

// shadowedOf returns the puts among changes that are shadowed.
func (h *Handler) shadowedOf(changes []slipswitch.Change) (all []shadowed) {
	table := h.Router.Table()
	for _, c := range changes {
		if c.Put == nil {
			continue
		}
		key := c.Put.Key()
		if standing, ok := table.At(key); ok && standing.Owner != h.owner() {
			all = append(all, shadowed{key, standing.Owner})
		}
	}
	return all
}

// listRoutes answers GET /v1/routes.
func (h *Handler) listRoutes(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "limit", "after", "owner", "host", "path", "label", "inactive_since", "upstream")
	if wrong != nil {
		return wrong
	}
	limit, wrong := pageLimit(query)
	if wrong != nil {
		return wrong
	}
	matches, wrong := routeFilter(query)
	if wrong != nil {
		return wrong
	}
	table := h.Router.Table()
	entries, wrong := entriesAfter(table, query.Get("after"))
	if wrong != nil {
		return wrong
	}
	page := struct {
		Version uint64      `json:"version"`
		Routes  []routeItem `json:"routes"`
		Next    string      `json:"next,omitempty"`
	}{table.Version(), []routeItem{}, ""}
	shown := false // an entry at the current key
	for e := range entries {
		shown = shown && e.Shadowed
		if !matches(e) {
			continue
		}
		// A page ends between keys. The next page begins after its last key, and so
		// after all shadowed routes there.
		if len(page.Routes) >= limit && !shown {
			page.Next = cursor(page.Routes[len(page.Routes)-1].Route.Key())
			break
		}
		page.Routes = append(page.Routes, h.itemOf(e))
		shown = true
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}

// routeFilter selects entries by the parameters of a list.
func routeFilter(query url.Values) (func(slipswitch.Entry) bool, *problem) {
	keys, wrong := newKeyFilter(query)
	if wrong != nil {
		return nil, wrong
	}
	var since time.Time
	if text := query.Get("inactive_since"); text != "" {
		var ok bool
		if since, ok = parseTime(text); !ok {
			return nil, badRequest("inactive_since", text, "must be an ISO 8601 time such as 2026-01-02T03:04:05Z")
		}
	}
	anyOwner, owner := !query.Has("owner"), query.Get("owner")
	isUpstream, wrong := upstreamFilter(query)
	if wrong != nil {
		return nil, wrong
	}
	return func(e slipswitch.Entry) bool {
		if !anyOwner && e.Owner != owner || !keys.matches(e.Key()) {
			return false
		}
		for _, label := range query["label"] {
			name, want, valued := strings.Cut(label, "=")
			if value, ok := e.Label(name); !ok || valued && value != want {
				return false
			}
		}
		if query.Has("upstream") && !slices.ContainsFunc(e.Upstreams(), isUpstream) {
			return false
		}
		return since.IsZero() || lastActive(e).Before(since)
	}, nil
}

// cursor returns the "next" of a page that ends with the key.
func cursor(k slipswitch.Key) string {
	canonical, _ := k.Canonical() // every key in a table has one
	return canonical.String()
}

// entriesAfter yields the entries after a cursor, or all if it is empty.
func entriesAfter(table *slipswitch.Table, after string) (iter.Seq[slipswitch.Entry], *problem) {
	if after == "" {
		return table.All(), nil
	}
	key, err := slipswitch.ParseKey(after)
	if err != nil {
		return nil, badRequest("after", after, "must be the next of the page before")
	}
	return table.After(key), nil
}

// getRoute answers GET /v1/route.
func (h *Handler) getRoute(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "host", "path", "exact", "owner")
	if wrong != nil {
		return wrong
	}
	key, wrong := address(query)
	if wrong != nil {
		return wrong
	}
	entry, ok := h.Router.Table().At(key)
	if query.Has("owner") {
		entry, ok = h.Router.Table().Of(query.Get("owner"), key)
	}
	if !ok {
		return noRoute(key)
	}
	writeRoute(w, http.StatusOK, h.itemOf(entry))
	return nil
}

// putRoute answers PUT /v1/route.
func (h *Handler) putRoute(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "host", "path", "exact", "wait", "ttl")
	if wrong != nil {
		return wrong
	}
	all, wrong := waitsForAll(query)
	if wrong != nil {
		return wrong
	}
	ttl, wrong := h.lasts(query)
	if wrong != nil {
		return wrong
	}
	key, wrong := address(query)
	if wrong != nil {
		return wrong
	}
	body, wrong := readJSON(w, r, h.maxBody())
	if wrong != nil {
		return wrong
	}
	route, invalid := decodeRoute(body, h.owner())
	if route.Key() == (slipswitch.Key{}) {
		route.Host, route.Path, route.Exact = key.Host, key.Path, key.Exact
	}
	if invalid == nil {
		invalid = differences(route.Key(), key, h.owner())
	}
	if invalid != nil {
		return invalidRoutes("the route", invalid)
	}
	var before uint64
	var was slipswitch.Entry
	var replaced bool
	version, err := h.write(r.Context(), change{
		owner: h.Owner, changes: []slipswitch.Change{{Put: route}}, conditional: conditional(r), all: all, ttl: ttl,
		check: func() *problem {
			before = h.Router.Table().Version()
			was, replaced = h.Router.Table().Of(h.owner(), key)
			return precondition(r, was.Version, replaced)
		},
	})
	if err != nil {
		return problemOf(err, "the route")
	}
	if version == before {
		version = was.Version // nothing has changed
	}
	item := routeItem{Route: route, Owner: h.owner(), Version: version}
	if entry, ok := h.Router.Table().Of(h.owner(), key); ok && entry.Version == version {
		item = h.itemOf(entry)
	} // otherwise another request has changed it since
	status := http.StatusCreated
	if replaced {
		status = http.StatusOK
	}
	writeRoute(w, status, item)
	return nil
}

// deleteRoute answers DELETE /v1/route.
func (h *Handler) deleteRoute(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "host", "path", "exact", "wait")
	if wrong != nil {
		return wrong
	}
	all, wrong := waitsForAll(query)
	if wrong != nil {
		return wrong
	}
	key, wrong := address(query)
	if wrong != nil {
		return wrong
	}
	_, err := h.write(r.Context(), change{
		owner: h.Owner, changes: []slipswitch.Change{{Delete: &key}}, conditional: conditional(r), all: all,
		check: func() *problem {
			was, found := h.Router.Table().Of(h.owner(), key)
			if wrong := precondition(r, was.Version, found); wrong != nil || found {
				return wrong
			}
			if other, ok := h.Router.Table().At(key); ok {
				return &problem{Status: http.StatusConflict, Text: fmt.Sprintf(
					"the route %.80q belongs to owner %q, and %q has none there: it must be deleted where it was put", key, other.Owner, h.owner())}
			}
			return noRoute(key)
		},
	})
	if err != nil {
		return problemOf(err, "the route")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) owner() string {
	if h.Owner == nil {
		return ""
	}
	return h.Owner.Name
}

func noRoute(k slipswitch.Key) *problem {
	return &problem{Status: http.StatusNotFound, Text: fmt.Sprintf("there is no route %.80q", k)}
}

func writeRoute(w http.ResponseWriter, status int, item routeItem) {
	w.Header().Set("ETag", etag(item.Version))
	writeJSON(w, status, item)
}

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// conditional reports whether a request has a condition for precondition.
func conditional(r *http.Request) bool {
	return r.Header.Values("If-Match") != nil || r.Header.Values("If-None-Match") != nil
}

// precondition checks If-Match and If-None-Match (RFC 9110 §13.1) against the
// current version.
func precondition(r *http.Request, version uint64, exists bool) *problem {
	lists := func(field string) bool {
		for _, line := range r.Header.Values(field) {
			for tag := range strings.SplitSeq(line, ",") {
				if tag = strings.TrimSpace(tag); exists && (tag == "*" || tag == etag(version)) {
					return true
				}
			}
		}
		return false
	}
	if r.Header.Values("If-Match") != nil && !lists("If-Match") || lists("If-None-Match") {
		text := "there is nothing yet"
		if exists {
			text = "the version is " + etag(version) + " now"
		}
		return &problem{Status: http.StatusPreconditionFailed, Text: text + ": read it again, then decide"}
	}
	return nil
}

// problemOf returns the answer for an error of Handler.write.
func problemOf(err error, what string) *problem {
	if wrong, ok := errors.AsType[*problem](err); ok {
		return wrong
	}
	if batch, ok := errors.AsType[*slipswitch.BatchError](err); ok {
		return invalidRoutes(what, batch.Routes)
	}
	if e, ok := errors.AsType[*slipswitch.Error](err); ok && e.Status >= 400 && e.Status < 600 {
		return &problem{Status: e.Status, Text: e.Reason}
	}
	for _, known := range storeErrors {
		if errors.Is(err, known.err) {
			return &problem{Status: known.status, Text: err.Error()}
		}
	}
	return &problem{Status: http.StatusInternalServerError, Text: err.Error()}
}

// storeErrors are the statuses for errors of stores and contexts. The first match
// wins, so the error of a store comes before that of a context that ended
// meanwhile.
var storeErrors = []struct {
	err    error
	status int
}{
	{store.ErrHeld, http.StatusAccepted},
	{store.ErrTooLarge, http.StatusRequestEntityTooLarge},
	{store.ErrReadOnly, http.StatusConflict},
	{store.ErrNoLeases, http.StatusNotImplemented},
	{store.ErrUnavailable, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusGatewayTimeout},
	{context.Canceled, http.StatusServiceUnavailable},
}

func invalidRoutes(what string, invalid []*slipswitch.RouteError) *problem {
	return &problem{http.StatusBadRequest, fmt.Sprintf("%s is invalid, and nothing was changed: see invalid (%d)", what, len(invalid)), invalid}
}
