package slipswitch_test

import (
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A frame is a WebSocket frame as it was on the wire, its payload unmasked.
type frame struct {
	opcode  byte
	final   bool
	masked  bool
	payload string
}

// frame reads one frame of less than 64 KiB.
func (p *peer) frame() (f frame, err error) {
	p.SetReadDeadline(time.Now().Add(wait))
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:2]); err != nil {
		return f, err
	}
	f.final, f.opcode, f.masked = head[0]&0x80 != 0, head[0]&0x0f, head[1]&0x80 != 0
	length := int(head[1] & 0x7f)
	if length == 126 {
		if _, err := io.ReadFull(p.r, head[2:]); err != nil {
			return f, err
		}
		length = int(binary.BigEndian.Uint16(head[2:]))
	}
	var key [4]byte
	if f.masked {
		if _, err := io.ReadFull(p.r, key[:]); err != nil {
			return f, err
		}
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(p.r, payload); err != nil {
		return f, err
	}
	for i := range payload {
		payload[i] ^= key[i&3]
	}
	f.payload = string(payload)
	return f, nil
}

// text returns a frame of text, from a client masked with zeros.
func text(fromClient bool, payload string) string { return wsFrame(0x81, fromClient, payload) }

func wsFrame(first byte, fromClient bool, payload string) string {
	head := []byte{first, byte(len(payload))}
	if len(payload) > 125 {
		head = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(len(payload)))
	}
	if fromClient {
		head[1] |= 0x80
		head = append(head, 0, 0, 0, 0)
	}
	return string(head) + payload
}

func closeFrame(fromClient bool, code uint16, reason string) string {
	return wsFrame(0x88, fromClient, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// told wants a Close frame next, answers it, and wants the end behind it.
func (p *peer) told(fromGatewayTo string, code uint16, reason string) {
	p.t.Helper()
	upstream := fromGatewayTo == "upstream"
	f, err := p.frame()
	if want := string(binary.BigEndian.AppendUint16(nil, code)) + reason; err != nil || f.opcode != 8 || f.payload != want || f.masked != upstream {
		p.t.Errorf("the %s got %+v, %v; want a Close frame %d %q", fromGatewayTo, f, err, code, reason)
		return
	}
	p.send(closeFrame(!upstream, code, ""))
	p.CloseWrite()
	p.expectEOF()
}

// both wants both ends of a tunnel to be told.
func both(client, far *peer, code uint16, reason string) {
	client.t.Helper()
	client.told("client", code, reason)
	far.told("upstream", code, reason)
}

// carries wants a tunnel to carry messages both ways.
func carries(client, far *peer) {
	client.t.Helper()
	client.send(text(true, "ping"))
	far.expect(text(true, "ping"))
	far.send(text(false, "pong"))
	client.expect(text(false, "pong"))
}

// wantReport wants the next report to be of the gateway's doing.
func (g *gateway) wantReport(why slipswitch.Why) {
	g.t.Helper()
	if r := g.report(); r.By != "gateway" || r.How != "policy" || r.Why != why {
		g.t.Errorf("report: by %s, %s, %s; want by gateway, policy, %s", r.By, r.How, r.Why, why)
	}
}

// What becomes of a tunnel is what its route says, and only when the route is
// deleted or no longer lists its upstream.
func TestRoutePolicies(t *testing.T) {
	at := slipswitch.Key{Host: host, Path: "/a"}
	for _, test := range []struct {
		name     string
		onDelete slipswitch.Ending
		onRemove slipswitch.Ending
		change   func(g *gateway, r slipswitch.Route, other *upstream)
		why      slipswitch.Why // empty: it stays
		code     uint16
		reason   string
	}{
		{"deleted, keep", slipswitch.Ending{}, slipswitch.Ending{Close: true}, deletes(at), "", 0, ""},
		{"deleted, close", slipswitch.Ending{Close: true}, slipswitch.Ending{}, deletes(at), slipswitch.WhyRouteDeleted, 1001, "route deleted"},
		{"deleted, close with a word", slipswitch.Ending{Close: true, Code: 4001, Reason: "grüße\n"}, slipswitch.Ending{}, deletes(at), slipswitch.WhyRouteDeleted, 4001, "grüße\n"},
		{"deleted, drain", slipswitch.Ending{Close: true, After: 20 * time.Millisecond, Window: time.Second}, slipswitch.Ending{}, deletes(at), slipswitch.WhyRouteDeleted, 1001, "route deleted"},
		{"equal", slipswitch.Ending{Close: true}, slipswitch.Ending{Close: true}, func(g *gateway, r slipswitch.Route, _ *upstream) { g.put(r) }, "", 0, ""},
		{"other options", slipswitch.Ending{Close: true}, slipswitch.Ending{Close: true}, func(g *gateway, r slipswitch.Route, _ *upstream) {
			r.StripPath, r.MaxBody = true, 7
			g.put(r)
		}, "", 0, ""},
		{"one more upstream", slipswitch.Ending{Close: true}, slipswitch.Ending{Close: true}, func(g *gateway, r slipswitch.Route, other *upstream) {
			r.Upstreams = append(r.Upstreams, slipswitch.To(other.url)...)
			g.put(r)
		}, "", 0, ""},
		{"upstream with another path", slipswitch.Ending{Close: true}, slipswitch.Ending{Close: true}, func(g *gateway, r slipswitch.Route, _ *upstream) {
			r.Upstreams = slipswitch.To(r.Upstreams[0].URL + "/base")
			g.put(r)
		}, "", 0, ""},
		{"upstream removed, keep", slipswitch.Ending{Close: true}, slipswitch.Ending{}, moves, "", 0, ""},
		{"upstream removed, close", slipswitch.Ending{}, slipswitch.Ending{Close: true}, moves, slipswitch.WhyUpstreamRemoved, 1012, "upstream removed"},
		{"upstream removed, drain", slipswitch.Ending{}, slipswitch.Ending{Close: true, After: 20 * time.Millisecond, Code: 1001, Reason: "moved"}, moves, slipswitch.WhyUpstreamRemoved, 1001, "moved"},
		{"a policy that comes with the move", slipswitch.Ending{}, slipswitch.Ending{}, func(g *gateway, r slipswitch.Route, other *upstream) {
			r.OnUpstreamRemoved.Close = true
			moves(g, r, other)
		}, slipswitch.WhyUpstreamRemoved, 1012, "upstream removed"},
		{"a policy that comes behind the move", slipswitch.Ending{}, slipswitch.Ending{}, func(g *gateway, r slipswitch.Route, other *upstream) {
			moves(g, r, other)
			r.OnUpstreamRemoved.Close = true
			moves(g, r, other)
		}, "", 0, ""},
		{"a longer prefix", slipswitch.Ending{Close: true}, slipswitch.Ending{Close: true}, func(g *gateway, r slipswitch.Route, other *upstream) {
			r.Path, r.Upstreams = "/a/socket", slipswitch.To(other.url)
			g.put(r)
		}, "", 0, ""},
		{"deleted and put in one batch", slipswitch.Ending{Close: true}, slipswitch.Ending{Close: true}, func(g *gateway, r slipswitch.Route, _ *upstream) {
			r.Host = host
			g.Router.Apply(nil, slipswitch.Change{Delete: &at}, slipswitch.Change{Put: &r})
		}, "", 0, ""},
		{"deleted, and back before the delay is over", slipswitch.Ending{Close: true, After: 50 * time.Millisecond}, slipswitch.Ending{}, func(g *gateway, r slipswitch.Route, _ *upstream) {
			deletes(at)(g, r, nil)
			g.put(r)
		}, "", 0, ""},
		{"deleted with a delay, then at once", slipswitch.Ending{Close: true, After: time.Hour}, slipswitch.Ending{}, func(g *gateway, r slipswitch.Route, other *upstream) {
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
			elsewhere.OnDelete, elsewhere.OnUpstreamRemoved = slipswitch.Ending{Close: true}, slipswitch.Ending{Close: true}
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
	r := slipswitch.Route{Path: "/ws", Upstreams: slipswitch.To("http://{1}.svc.example."), OnUpstreamRemoved: slipswitch.Ending{Close: true}}
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
	for name, policy := range map[string]struct{ before, behind slipswitch.Ending }{
		"deleted":               {slipswitch.Ending{Close: true, Code: 4001}, slipswitch.Ending{Close: true, Code: 4001}},
		"told to, then deleted": {slipswitch.Ending{}, slipswitch.Ending{Close: true, Code: 4001}},
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

// A Close frame comes between two frames, be they of one message, and nothing
// after it. Where no such place comes, there is none.
func TestCloseWaitsForTheFrame(t *testing.T) {
	long := binary.BigEndian.AppendUint64([]byte("\x82\x7f"), 16<<20)
	endless := binary.BigEndian.AppendUint64([]byte("\x82\x7f"), 1<<62)
	megabyte := strings.Repeat("0123456789abcdef", 1<<16)
	for _, test := range []struct {
		name         string
		before, rest string // of the frame, what comes before Close and after
		told         bool
	}{
		{"in 16 MiB", string(long) + megabyte, strings.Repeat(megabyte, 15), true},
		{"in a fragment", wsFrame(0x01, false, "half")[:3], wsFrame(0x01, false, "half")[3:], true},
		{"between fragments", wsFrame(0x01, false, "half"), "", true},
		{"in 2^62 bytes", string(endless) + megabyte, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := tunneling(t)
			g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
			client, far := g.open("/a", u)
			go far.send(test.before)
			client.expect(test.before)
			if err := g.tunnels(1)[0].Close(1001, "enough"); err != nil {
				t.Fatal(err)
			}
			if f, err := far.frame(); err != nil || f.opcode != 8 { // that way the place is here
				t.Errorf("the upstream got %+v, %v; want a Close frame", f, err)
			}
			go io.WriteString(far.TCPConn, test.rest+wsFrame(0x89, false, "late")+closeFrame(false, 1001, "late, too"))
			if test.told {
				client.expect(test.rest)
				client.told("client", 1001, "enough")
			} else if got, err := client.rest(); err != nil || strings.Contains(got, "enough") {
				t.Errorf("got %.100q, %v; want an end without a Close frame", got, err)
			}
			client.Close()
			far.rest()
			far.Close()
			g.wantReport(slipswitch.WhyAdmin)
		})
	}
}

// Whoever ends first is named, also when the gateway is about to.
func TestCloseMeetsThePeersEnd(t *testing.T) {
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	for i := range 50 {
		client, far := g.open("/a", u)
		tunnel := g.tunnels(1)[0]
		done := make(chan struct{})
		go func() {
			defer close(done)
			tunnel.Close(1001, "")
		}()
		if i%2 == 0 {
			client.send(closeFrame(true, 1000, ""))
		} else {
			client.reset()
		}
		receive(t, "Close returns", done)
		far.CloseWrite()
		client.Close()
		far.rest()
		far.Close()
		r := g.report()
		if client := r.By == "client" && (r.How == "close frame" || r.How == "RST"); !client && (r.By != "gateway" || r.Why != "admin") {
			t.Errorf("report %+v; want the client's or the gateway's", r)
		}
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
			tx.As(team).Delete(host, "/a")
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
				test.change = func(tx *slipswitch.Txn, _ slipswitch.Route, _ *upstream) { tx.As(team).Delete(host, "/a") }
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
