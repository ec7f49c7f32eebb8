package slipswitch_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

func TestReauthorize(t *testing.T) {
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	for name, test := range map[string]struct {
		every   time.Duration
		rejects func() error
	}{
		"fails":   {20 * time.Millisecond, func() error { return errors.New("logged out") }},
		"panics":  {20 * time.Millisecond, func() error { panic("oops") }},
		"hangs":   {20 * time.Millisecond, func() error { <-hung; return nil }},
		"at once": {1, func() error { return errors.New("logged out") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := tunneling(t)
			var asked atomic.Int64
			var carried atomic.Bool
			g := startGateway(t, &slipswitch.Proxy{
				ReauthorizeEvery: test.every,
				Reauthorize: func(_ context.Context, tunnel *slipswitch.Tunnel) error {
					if tunnel.Route().Path != "/a" || tunnel.Client() != "127.0.0.1" {
						t.Errorf("asked about %v of %s", tunnel.Route(), tunnel.Client())
					}
					if asked.Add(1) > 5 && carried.Load() {
						return test.rejects()
					}
					return nil
				},
			}, route("/a", u))
			client, far := g.open("/a", u)
			carries(client, far)
			carried.Store(true)
			both(client, far, 1008, "login expired")
			g.wantReport(slipswitch.WhyLoginExpired)
		})
	}
}

// Nobody asks about a tunnel that has ended.
func TestReauthorizeEnds(t *testing.T) {
	u := tunneling(t)
	var asked atomic.Int64
	g := startGateway(t, &slipswitch.Proxy{ReauthorizeEvery: 5 * time.Millisecond,
		Reauthorize: func(context.Context, *slipswitch.Tunnel) error { asked.Add(1); return nil }}, route("/a", u))
	client, far := g.open("/a", u)
	until(t, "it is asked", func() bool { return asked.Load() > 0 })
	client.Close()
	far.Close()
	g.report()
	time.Sleep(10 * time.Millisecond) // one may be under way
	before := asked.Load()
	time.Sleep(50 * time.Millisecond)
	if got := asked.Load(); got != before {
		t.Errorf("asked %d times after the end", got-before)
	}
}

// What editors send while nobody types is bytes, and no activity.
func TestActivitySize(t *testing.T) {
	u := tunneling(t)
	r := route("/a", u)
	r.ActivitySize = 14
	g := startGateway(t, new(slipswitch.Proxy), r)
	client, far := g.open("/a", u)
	tunnel := g.tunnels(1)[0]
	keepalive := text(true, "13 bytes long")
	client.send(keepalive)
	far.expect(keepalive)
	until(t, "it is counted", func() bool { return tunnel.Traffic().ClientMessages > 0 })
	if traffic := tunnel.Traffic(); traffic.ClientMessages != 1 || traffic.LastData.IsZero() || !traffic.LastActive.IsZero() {
		t.Errorf("a keepalive: got %+v; want one message, data, no activity", traffic)
	}
	typed := text(true, "14 bytes, typed")
	client.send(typed)
	far.expect(typed)
	until(t, "it is activity", func() bool { return !tunnel.Traffic().LastActive.IsZero() })
}
