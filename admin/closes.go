package admin

import (
	"net/http"
	"slices"

	"github.com/slipswitch/slipswitch"
)

// whys are the values of Why in reports.
var whys = []slipswitch.Why{
	slipswitch.WhyIdle, slipswitch.WhyStall, slipswitch.WhyLife, slipswitch.WhyPing, slipswitch.WhyLinger, slipswitch.WhyRouteDeleted,
	slipswitch.WhyUpstreamRemoved, slipswitch.WhyDrain, slipswitch.WhyShutdown, slipswitch.WhyAdmin, slipswitch.WhyLoginExpired,
}

// listCloses answers GET /v1/closes.
func (h *Handler) listCloses(w http.ResponseWriter, r *http.Request) *problem {
	query, wrong := parameters(r, "limit", "host", "path", "upstream", "client", "peer", "by", "why")
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
	by, wrong := oneOf(query, "by", slipswitch.ByClient, slipswitch.ByUpstream, slipswitch.ByGateway)
	if wrong != nil {
		return wrong
	}
	why, wrong := oneOf(query, "why", whys...)
	if wrong != nil {
		return wrong
	}
	isClient, wrong := addressFilter(query, "client")
	if wrong != nil {
		return wrong
	}
	isPeer, wrong := addressFilter(query, "peer")
	if wrong != nil {
		return wrong
	}
	isUpstream, wrong := upstreamFilter(query)
	if wrong != nil {
		return wrong
	}
	list := struct {
		Closes []slipswitch.CloseReport `json:"closes"` // the newest first
		Bursts []slipswitch.Burst       `json:"bursts"`
	}{[]slipswitch.CloseReport{}, []slipswitch.Burst{}}
	if h.Proxy != nil {
		for _, c := range slices.Backward(h.Proxy.CloseReports()) {
			if len(list.Closes) < limit && keys.matches(c.Route) && isUpstream(c.Upstream) &&
				(by == "" || c.By == by) && (why == "" || c.Why == why) && isClient(c.Client) && isPeer(c.Peer) {
				c.Opened, c.Closed, c.LastData, c.LastActive = c.Opened.UTC(), c.Closed.UTC(), c.LastData.UTC(), c.LastActive.UTC()
				list.Closes = append(list.Closes, c)
			}
		}
		for _, b := range slices.Backward(h.Proxy.Bursts()) {
			b.First, b.Last = b.First.UTC(), b.Last.UTC()
			list.Bursts = append(list.Bursts, b)
		}
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}
