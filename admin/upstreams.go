package admin

import (
	"maps"
	"net/http"
	"slices"
	"time"
)

// An upstreamItem is an upstream and its tunnels.
type upstreamItem struct {
	Upstream   string    `json:"upstream"`
	Tunnels    int       `json:"tunnels"` // open now
	LastActive time.Time `json:"lastActive,omitzero"`
}

// listUpstreams answers GET /v1/upstreams.
func (h *Handler) listUpstreams(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "limit", "after", "upstream")
	if wrong != nil {
		return wrong
	}
	limit, wrong := pageLimit(query)
	if wrong != nil {
		return wrong
	}
	isUpstream, wrong := upstreamFilter(query)
	if wrong != nil {
		return wrong
	}
	page := struct {
		Upstreams []*upstreamItem `json:"upstreams"`
		Next      string          `json:"next,omitempty"`
	}{Upstreams: []*upstreamItem{}}
	uses := h.upstreams()
	for _, upstream := range slices.Sorted(maps.Keys(uses)) {
		if upstream <= query.Get("after") || !isUpstream(upstream) {
			continue
		}
		if len(page.Upstreams) == limit {
			page.Next = page.Upstreams[limit-1].Upstream
			break
		}
		page.Upstreams = append(page.Upstreams, uses[upstream])
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}

// upstreams returns the items, by upstream, of upstreams that have tunnels, or
// had one of the last that ended.
func (h *Handler) upstreams() map[string]*upstreamItem {
	uses := make(map[string]*upstreamItem)
	use := func(upstream string, active time.Time, tunnels int) {
		item := uses[upstream]
		if item == nil {
			item = &upstreamItem{Upstream: upstream}
			uses[upstream] = item
		}
		item.Tunnels += tunnels
		if active.After(item.LastActive) {
			item.LastActive = active.UTC()
		}
	}
	for t := range h.tunnels() {
		use(t.Upstream(), t.Traffic().LastActive, 1)
	}
	if h.Proxy != nil {
		for _, c := range h.Proxy.CloseReports() {
			use(c.Upstream, c.LastActive, 0)
		}
	}
	return uses
}
