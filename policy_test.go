package slipswitch_test

import (
	"io"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// What becomes of a tunnel is what its route says, and only when the route is
// deleted or no longer lists its upstream.
func TestRoutePolicies(t *testing.T) {
	at := slipswitch.Key{Host: host, Path: "/a"}
	for _, test := range []struct {
		name     string
		onDelete slipswitch.ClosePolicy
		onRemove slipswitch.ClosePolicy
		change   func(g *gateway, r slipswitch.Route, other *upstream)
		why      slipswitch.Why // empty: it stays
		code     uint16
		reason   string
	}{
		{"deleted, keep", slipswitch.ClosePolicy{}, slipswitch.ClosePolicy{Close: true}, deletes(at), "", 0, ""},
		{"deleted, close", slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{}, deletes(at), slipswitch.WhyRouteDeleted, 1001, "route deleted"},
		{"deleted, close with a word", slipswitch.ClosePolicy{Close: true, Code: 4001, Reason: "grüße\n"}, slipswitch.ClosePolicy{}, deletes(at), slipswitch.WhyRouteDeleted, 4001, "grüße\n"},
		{"deleted, drain", slipswitch.ClosePolicy{Close: true, After: 20 * time.Millisecond, Window: time.Second}, slipswitch.ClosePolicy{}, deletes(at), slipswitch.WhyRouteDeleted, 1001, "route deleted"},
		{"equal", slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{Close: true}, func(g *gateway, r slipswitch.Route, _ *upstream) { g.put(r) }, "", 0, ""},
		{"other options", slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{Close: true}, func(g *gateway, r slipswitch.Route, _ *upstream) {
			r.StripPath, r.MaxBody = true, 7
			g.put(r)
		}, "", 0, ""},
		{"one more upstream", slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{Close: true}, func(g *gateway, r slipswitch.Route, other *upstream) {
			r.Upstreams = append(r.Upstreams, slipswitch.To(other.url)...)
			g.put(r)
		}, "", 0, ""},
		{"upstream with another path", slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{Close: true}, func(g *gateway, r slipswitch.Route, _ *upstream) {
			r.Upstreams = slipswitch.To(r.Upstreams[0].URL + "/base")
			g.put(r)
		}, "", 0, ""},
		{"upstream removed, keep", slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{}, moves, "", 0, ""},
		{"upstream removed, close", slipswitch.ClosePolicy{}, slipswitch.ClosePolicy{Close: true}, moves, slipswitch.WhyUpstreamRemoved, 1012, "upstream removed"},
		{"upstream removed, drain", slipswitch.ClosePolicy{}, slipswitch.ClosePolicy{Close: true, After: 20 * time.Millisecond, Code: 1001, Reason: "moved"}, moves, slipswitch.WhyUpstreamRemoved, 1001, "moved"},
		{"a policy that comes with the move", slipswitch.ClosePolicy{}, slipswitch.ClosePolicy{}, func(g *gateway, r slipswitch.Route, other *upstream) {
			r.OnUpstreamRemoved.Close = true
			moves(g, r, other)
		}, slipswitch.WhyUpstreamRemoved, 1012, "upstream removed"},
		{"a policy that comes behind the move", slipswitch.ClosePolicy{}, slipswitch.ClosePolicy{}, func(g *gateway, r slipswitch.Route, other *upstream) {
			moves(g, r, other)
			r.OnUpstreamRemoved.Close = true
			moves(g, r, other)
		}, "", 0, ""},
		{"a longer prefix", slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{Close: true}, func(g *gateway, r slipswitch.Route, other *upstream) {
			r.Path, r.Upstreams = "/a/socket", slipswitch.To(other.url)
			g.put(r)
		}, "", 0, ""},
		{"deleted and put in one batch", slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{Close: true}, func(g *gateway, r slipswitch.Route, _ *upstream) {
			r.Host = host
			g.Router.Apply(nil, slipswitch.Change{Delete: &at}, slipswitch.Change{Put: &r})
		}, "", 0, ""},
		{"deleted, and back before the delay is over", slipswitch.ClosePolicy{Close: true, After: 50 * time.Millisecond}, slipswitch.ClosePolicy{}, func(g *gateway, r slipswitch.Route, _ *upstream) {
			deletes(at)(g, r, nil)
			g.put(r)
		}, "", 0, ""},
		{"deleted with a delay, then at once", slipswitch.ClosePolicy{Close: true, After: time.Hour}, slipswitch.ClosePolicy{}, func(g *gateway, r slipswitch.Route, other *upstream) {
			deletes(at)(g, r, nil)
			r.OnDelete.After = 0
			r.Upstreams = slipswitch.To(other.url)
			g.put(r)
			deletes(at)(g, r, nil)
		}, slipswitch.WhyRouteDeleted, 1001, "route deleted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u, other := tunneling(t), tunneling(t)
			r, elsewhere := route("/a", u), route("/b", u)
			r.OnDelete, r.OnUpstreamRemoved = test.onDelete, test.onRemove
			elsewhere.OnDelete, elsewhere.OnUpstreamRemoved = slipswitch.ClosePolicy{Close: true}, slipswitch.ClosePolicy{Close: true}
			g := startGateway(t, new(slipswitch.Proxy), r, elsewhere)
			client, far := g.open("/a/socket", u)
			apart, farApart := g.open("/b", u)
			g.tunnels(2)
			test.change(g, r, other)
			if test.why != "" {
				both(client, far, test.code, test.reason)
				g.wantReport(test.why)
			} else {
				time.Sleep(100 * time.Millisecond) // for what must not come
				carries(client, far)
			}
			carries(apart, farApart)
		})
	}
}

func deletes(k slipswitch.Key) func(*gateway, slipswitch.Route, *upstream) {
	return func(g *gateway, _ slipswitch.Route, _ *upstream) {
		g.t.Helper()
		if _, err := g.Router.Apply(nil, slipswitch.Change{Delete: &k}); err != nil {
			g.t.Error(err)
		}
	}
}

func moves(g *gateway, r slipswitch.Route, other *upstream) {
	g.t.Helper()
	r.Upstreams = slipswitch.To(other.url)
	g.put(r)
}

// A tunnel by a template belongs to the template, wherever that led it.
func TestPolicyOfTemplates(t *testing.T) {
	u := tunneling(t)
	r := slipswitch.Route{Path: "/ws", Upstreams: slipswitch.To("http://{1}.svc.example."), OnUpstreamRemoved: slipswitch.ClosePolicy{Close: true}}
	p, _ := dialled(u)
	g := startGateway(t, p, r)
	client, far := g.open("/ws/ide-7/", u)
	tunnel := g.tunnels(1)[0]
	r.StripPath = true
	g.put(r)
	carries(client, far)
	r.Upstreams = slipswitch.To(tunnel.Upstream()) // the same address, but no template's
	g.put(r)
	both(client, far, 1012, "upstream removed")
	g.wantReport(slipswitch.WhyUpstreamRemoved)
}

// A route that changes between lookup and 101 changes for the tunnel, too.
func TestPolicyDuringHandshake(t *testing.T) {
	for name, policy := range map[string]struct{ before, behind slipswitch.ClosePolicy }{
		"deleted":               {slipswitch.ClosePolicy{Close: true, Code: 4001}, slipswitch.ClosePolicy{Close: true, Code: 4001}},
		"told to, then deleted": {slipswitch.ClosePolicy{}, slipswitch.ClosePolicy{Close: true, Code: 4001}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, answer := make(chan struct{}), make(chan struct{})
			u := startScript(t, func(u *upstream, p *peer) bool {
				if _, err := p.request(); err != nil {
					return false
				}
				close(asked)
				<-answer
				_, err := io.WriteString(p.TCPConn, switching())
				return err == nil
			})
			r := route("/a", u)
			r.OnDelete = policy.before
			g := startGateway(t, new(slipswitch.Proxy), r)
			client := g.dial()
			client.send(handshake("/a"))
			receive(t, "the upstream is asked", asked)
			r.OnDelete = policy.behind
			g.put(r)
			deletes(slipswitch.Key{Host: host, Path: "/a"})(g, r, nil)
			close(answer)
			if a := client.answer("GET"); a.StatusCode != 101 {
				t.Fatalf("got %s", a.Status)
			}
			both(client, u.tunnel(), 4001, "route deleted")
			g.wantReport(slipswitch.WhyRouteDeleted)
		})
	}
}

// A report of a tunnel that a change to the table has ended says which change,
// whose, and where that came from; no other report does.
func TestReportTellsTheChange(t *testing.T) {
	type T = slipswitch.TableChange
	team := &slipswitch.Owner{Name: "team-a"}
	for _, test := range []struct {
		name   string
		change func(tx *slipswitch.Txn, r slipswitch.Route, other *upstream)
		want   *T
	}{
		{"deleted", func(tx *slipswitch.Txn, r slipswitch.Route, _ *upstream) {
			tx.From("store etcd revision 7")
			tx.As(team).Delete(slipswitch.Key{Host: host, Path: "/a"})
		}, &T{Owner: "team-a", Origin: "store etcd revision 7", Version: 2}},
		{"moved", func(tx *slipswitch.Txn, r slipswitch.Route, other *upstream) {
			r.Upstreams = slipswitch.To(other.url)
			tx.As(team).Put(r)
			tx.As(nil).From("admin 127.0.0.1")
		}, &T{Owner: "team-a", Origin: "admin 127.0.0.1", Version: 2}},
		{"without an origin", func(tx *slipswitch.Txn, r slipswitch.Route, other *upstream) {
			tx.As(team).Clear()
		}, &T{Owner: "team-a", Version: 2}},
		{"closed, then deleted", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			u, other := tunneling(t), tunneling(t)
			r := route("/a", u)
			r.Host, r.OnDelete.Close, r.OnUpstreamRemoved.Close = host, true, true
			g := startGateway(t, new(slipswitch.Proxy))
			update := func(change func(tx *slipswitch.Txn)) {
				if _, err := g.Router.Update(func(tx *slipswitch.Txn) error { change(tx); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			update(func(tx *slipswitch.Txn) { tx.As(team).Put(r) })
			client, far := g.open("/a", u)
			if test.change == nil {
				g.tunnels(1)[0].Close(1001, "")
				test.change = func(tx *slipswitch.Txn, _ slipswitch.Route, _ *upstream) {
					tx.As(team).Delete(slipswitch.Key{Host: host, Path: "/a"})
				}
			}
			update(func(tx *slipswitch.Txn) { test.change(tx, r, other) })
			client.leave()
			far.leave()
			got := g.report().Change
			if (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
				t.Errorf("got %+v; want %+v", got, test.want)
			}
		})
	}
}
