package admin

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A tunnelItem is an open tunnel.
type tunnelItem struct {
	ID       uint64         `json:"id"`
	Route    slipswitch.Key `json:"route"`
	Version  uint64         `json:"version"`
	Client   string         `json:"client"`
	Upstream string         `json:"upstream"`
	Opened   time.Time      `json:"opened"`
	slipswitch.Traffic
}

// listTunnels answers GET /v1/tunnels.
func (h *Handler) listTunnels(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "limit", "after", "host", "path", "upstream", "client")
	if wrong != nil {
		return wrong
	}
	limit, wrong := pageLimit(query)
	if wrong != nil {
		return wrong
	}
	keys, wrong := newKeyFilter(query)
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
	upstream, client := query.Get("upstream"), query.Get("client")
	page := struct {
		Tunnels []tunnelItem `json:"tunnels"`
		Next    string       `json:"next,omitempty"`
	}{Tunnels: []tunnelItem{}}
	if h.Proxy == nil {
		writeJSON(w, http.StatusOK, page)
		return nil
	}
	for t := range h.Proxy.Tunnels() {
		switch {
		case t.ID() <= after, !keys.matches(t.Route()), client != "" && t.Client() != client,
			upstream != "" && t.Upstream() != upstream && !strings.HasSuffix(t.Upstream(), "://"+upstream):
			continue
		}
		if len(page.Tunnels) == limit {
			page.Next = strconv.FormatUint(page.Tunnels[limit-1].ID, 10)
			break
		}
		traffic := t.Traffic()
		traffic.LastData, traffic.LastActive = traffic.LastData.UTC(), traffic.LastActive.UTC()
		page.Tunnels = append(page.Tunnels, tunnelItem{t.ID(), t.Route(), t.Version(), t.Client(), t.Upstream(), t.Opened().UTC(), traffic})
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}
