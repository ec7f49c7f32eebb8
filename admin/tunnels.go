package admin

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/slipswitch/slipswitch"
)

// A tunnelItem is an open tunnel.
type tunnelItem struct {
	ID       uint64         `json:"id"`
	Route    slipswitch.Key `json:"route"`
	Version  uint64         `json:"version"`
	Client   string         `json:"client"`
	Peer     string         `json:"peer"`
	Upstream string         `json:"upstream"`
	Opened   time.Time      `json:"opened"`
	slipswitch.Traffic
}

func tunnelItemOf(t *slipswitch.Tunnel) tunnelItem {
	traffic := t.Traffic()
	traffic.LastData, traffic.LastActive = traffic.LastData.UTC(), traffic.LastActive.UTC()
	return tunnelItem{t.ID(), t.Route(), t.Version(), t.Client(), t.Peer(), t.Upstream(), t.Opened().UTC(), traffic}
}

// tunnelOrders are the orders in which tunnels can be listed.
var tunnelOrders = map[string]func(a, b tunnelItem) int{
	"opened": func(a, b tunnelItem) int { return a.Opened.Compare(b.Opened) },
	"bytes": func(a, b tunnelItem) int {
		return cmp.Compare(a.ClientBytes+a.UpstreamBytes, b.ClientBytes+b.UpstreamBytes)
	},
	"lastData":   func(a, b tunnelItem) int { return a.LastData.Compare(b.LastData) },
	"lastActive": func(a, b tunnelItem) int { return a.LastActive.Compare(b.LastActive) },
}

// listTunnels answers GET /v1/tunnels.
func (h *Handler) listTunnels(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "limit", "after", "sort", "id", "host", "path", "upstream", "client", "peer")
	if wrong != nil {
		return wrong
	}
	limit, wrong := pageLimit(query)
	if wrong != nil {
		return wrong
	}
	matches, wrong := tunnelFilter(query)
	if wrong != nil {
		return wrong
	}
	var after uint64
	if text := query.Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return badRequest("after", text, "must be the next of the page before")
		}
	}
	by, descending := strings.CutPrefix(query.Get("sort"), "-")
	order := tunnelOrders[by]
	switch {
	case query.Has("sort") && order == nil:
		return badRequest("sort", by, "must be opened, bytes, lastData or lastActive, with - in front for the greatest first")
	case order != nil && query.Has("after"):
		return badRequest("after", query.Get("after"), "must be left out: a sorted list has one page, since what it is sorted by changes")
	}
	page := struct {
		Tunnels []tunnelItem `json:"tunnels"`
		Next    string       `json:"next,omitempty"`
	}{Tunnels: []tunnelItem{}}
	for t := range h.tunnels() {
		if t.ID() <= after || !matches(t) {
			continue
		}
		if order == nil && len(page.Tunnels) == limit {
			page.Next = strconv.FormatUint(page.Tunnels[limit-1].ID, 10)
			break
		}
		page.Tunnels = append(page.Tunnels, tunnelItemOf(t))
	}
	if order != nil {
		slices.SortStableFunc(page.Tunnels, func(a, b tunnelItem) int {
			if descending {
				a, b = b, a
			}
			return order(a, b)
		})
		page.Tunnels = page.Tunnels[:min(len(page.Tunnels), limit)]
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}

// tunnels yields the open tunnels.
func (h *Handler) tunnels() func(func(*slipswitch.Tunnel) bool) {
	if h.Proxy == nil {
		return func(func(*slipswitch.Tunnel) bool) {}
	}
	return h.Proxy.Tunnels()
}

// tunnelFilter selects tunnels by the parameters id, host, path, upstream and
// client.
func tunnelFilter(query url.Values) (func(*slipswitch.Tunnel) bool, *problem) {
	keys, wrong := newKeyFilter(query)
	if wrong != nil {
		return nil, wrong
	}
	var id uint64
	if text := query.Get("id"); query.Has("id") {
		var err error
		if id, err = strconv.ParseUint(text, 10, 64); err != nil || id == 0 {
			return nil, badRequest("id", text, "must be that of a tunnel")
		}
	}
	isClient, wrong := addressFilter(query, "client")
	if wrong != nil {
		return nil, wrong
	}
	isPeer, wrong := addressFilter(query, "peer")
	if wrong != nil {
		return nil, wrong
	}
	isUpstream, wrong := upstreamFilter(query)
	if wrong != nil {
		return nil, wrong
	}
	return func(t *slipswitch.Tunnel) bool {
		return (id == 0 || t.ID() == id) && keys.matches(t.Route()) &&
			isClient(t.Client()) && isPeer(t.Peer()) && isUpstream(t.Upstream())
	}, nil
}

// closeTunnels answers DELETE /v1/tunnels.
func (h *Handler) closeTunnels(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "id", "host", "path", "upstream", "client", "peer", "code", "reason", "window")
	if wrong != nil {
		return wrong
	}
	matches, wrong := tunnelFilter(query)
	if wrong != nil {
		return wrong
	}
	if !query.Has("host") && query.Get("id")+query.Get("path")+query.Get("upstream")+query.Get("client")+query.Get("peer") == "" {
		return &problem{Status: http.StatusBadRequest, Text: "id, host, path, upstream, client or peer must be given: path=/ is all tunnels"}
	}
	var code uint64
	if text := query.Get("code"); query.Has("code") {
		var err error
		if code, err = strconv.ParseUint(text, 10, 16); err != nil || !sendable(code) {
			return badRequest("code", text, "must be 1000 to 1003, 1007 to 1014, or 3000 to 4999")
		}
	}
	reason := query.Get("reason")
	if len(reason) > 123 || !utf8.ValidString(reason) {
		return badRequest("reason", reason, "must be at most 123 bytes of UTF-8")
	}
	var window time.Duration
	if text := query.Get("window"); query.Has("window") {
		var err error
		if window, err = time.ParseDuration(text); err != nil || window < 0 {
			return badRequest("window", text, `must be a time such as "30s"`)
		}
	}
	closing := struct {
		Closing int `json:"closing"`
	}{}
	var err error
	switch {
	case h.Proxy == nil:
	case query.Has("window"):
		closing.Closing, err = h.Proxy.Drain(matches, window, uint16(code), reason)
	default:
		for t := range h.Proxy.Tunnels() {
			if matches(t) {
				err = t.Close(uint16(code), reason)
				closing.Closing++
			}
		}
	}
	if err != nil {
		return badRequest("code", query.Get("code"), err.Error())
	}
	h.audit(r.Context(), slog.LevelInfo, nil, slog.Int("tunnels", closing.Closing))
	writeJSON(w, http.StatusAccepted, closing)
	return nil
}

// sendable reports whether an endpoint may send a close code (RFC 6455 §7.4).
func sendable(code uint64) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}
