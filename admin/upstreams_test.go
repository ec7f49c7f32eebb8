package admin_test

import (
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

type upstreamPage struct {
	Upstreams []struct {
		Upstream   string
		Tunnels    int
		LastActive time.Time
	}
	Next string
}

func TestUpstreams(t *testing.T) {
	g, other := startGateway(t, &admin.Handler{}), startGateway(t, &admin.Handler{})
	put(t, g.router, "", slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(g.echo)}, slipswitch.Route{Path: "/b", Upstreams: slipswitch.To(g.echo)},
		slipswitch.Route{Path: "/c", Upstreams: slipswitch.To(other.echo)})
	list := func(query string) upstreamPage {
		t.Helper()
		return decode[upstreamPage](t, g.want(200, "GET", "/v1/upstreams?"+query, ""))
	}
	if page := list(""); len(page.Upstreams) != 0 {
		t.Errorf("got %+v; want none", page)
	}
	before := time.Now()
	a, _, c := g.dial("/a"), g.dial("/b"), g.dial("/c")
	if page := list("upstream=" + g.echo); len(page.Upstreams) != 1 || page.Upstreams[0].Tunnels != 2 || !page.Upstreams[0].LastActive.IsZero() {
		t.Errorf("got %+v; want two tunnels and no activity", page)
	}
	talk(t, a, "hello")
	talk(t, c, "hello")
	c.CloseNow()
	until(t, "no tunnel, and activity", func() bool {
		page := list("upstream=" + other.echo) // its last tunnel has ended, and it is known still
		return len(page.Upstreams) == 1 && page.Upstreams[0].Tunnels == 0 && !page.Upstreams[0].LastActive.Before(before)
	})
	first := list("limit=1")
	if len(first.Upstreams) != 1 || first.Next == "" {
		t.Fatalf("got %+v; want a page of one", first)
	}
	second := list("limit=1&after=" + first.Next)
	if len(second.Upstreams) != 1 || second.Next != "" || second.Upstreams[0].Upstream <= first.Upstreams[0].Upstream {
		t.Errorf("got %+v behind %+v", second, first)
	}
	for _, u := range append(first.Upstreams, second.Upstreams...) {
		if u.LastActive.Before(before) {
			t.Errorf("got %+v; want activity", u)
		}
	}
	g.want(400, "GET", "/v1/upstreams?sort=1", "")
}
