package slipswitch_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// TestDialsAreBounded: upstreams that do not answer take no more than their
// share, of plain requests and of handshakes; what is connected is not counted.
func TestDialsAreBounded(t *testing.T) {
	u := startUpstream(t, func(received) string { return ok("hello", "Connection: close") })
	for _, test := range []struct {
		name   string
		limits slipswitch.Limits
		other  int // what another route is answered meanwhile
	}{
		{"all", slipswitch.Limits{Dials: 2}, 503},
		{"route", slipswitch.Limits{DialsPerRoute: 2}, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			release := make(chan struct{})
			var dialling atomic.Int64
			p := &slipswitch.Proxy{Limits: test.limits, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == "slow.example.:80" {
					dialling.Add(1)
					defer dialling.Add(-1)
					select {
					case <-release:
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				return new(net.Dialer).DialContext(ctx, network, u.listener.Addr().String())
			}}
			g := startGateway(t, p, slipswitch.Route{Path: "/slow", Upstreams: slipswitch.To("http://slow.example.")}, route("/fast", u))
			plain, upgrade := g.dial(), g.dial()
			plain.send(request("GET", "/slow"))
			upgrade.send(handshake("/slow"))
			until(t, "both are dialled", func() bool { return dialling.Load() == 2 })
			for _, raw := range []string{request("GET", "/slow"), handshake("/slow")} {
				if a := g.do(raw); a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" {
					t.Errorf("the third: got %s", a.Status)
				}
			}
			if a := g.get("/fast"); a.StatusCode != test.other {
				t.Errorf("another route: got %s; want %d", a.Status, test.other)
			}
			close(release)
			for _, client := range []*peer{plain, upgrade} {
				if a := client.answer("GET"); a.StatusCode != 200 {
					t.Errorf("got %s", a.Status)
				}
			}
			if a := g.get("/slow"); a.StatusCode != 200 {
				t.Errorf("afterwards: got %s", a.Status)
			}
		})
	}
}
