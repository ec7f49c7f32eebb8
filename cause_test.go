package slipswitch_test

import (
	"crypto/tls"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// wantCause wants the next report to have this cause.
func (g *gateway) wantCause(state string, by slipswitch.By, how slipswitch.How, why slipswitch.Why) (r slipswitch.CloseReport) {
	g.t.Helper()
	if r = g.report(); r.State != state || r.By != by || r.How != how || r.Why != why {
		g.t.Errorf("report: %s, by %s, %s, %q; want %s, by %s, %s, %q", r.State, r.By, r.How, r.Why, state, by, how, why)
	}
	return r
}

// TestPings: a quiet client is asked whether it is there. The upstream sees
// nothing of it, and a change of the route applies to open tunnels.
func TestPings(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	r := route("/a", u)
	g := startGateway(t, &slipswitch.Proxy{}, r)
	client, far := g.open("/a", u)
	open := g.tunnels(1)[0]
	r.PingEvery = time.Second
	g.put(r)
	for range 2 {
		ping, err := client.frame()
		if err != nil || ping.opcode != 9 || ping.masked || len(ping.payload) != 8 {
			t.Fatalf("got %+v, %v; want a ping", ping, err)
		}
		client.send(wsFrame(0x8a, true, ping.payload))
	}
	if traffic := open.Traffic(); traffic != (slipswitch.Traffic{}) {
		t.Errorf("got %+v; want no traffic", traffic)
	}
	client.send(clientText)
	far.expect(clientText) // and no pong
	ping, err := client.frame()
	if err != nil || ping.opcode != 9 {
		t.Fatalf("got %+v, %v; want a ping", ping, err)
	}
	both(client, far, 1001, "ping timeout")
	got := g.wantCause("GT", "gateway", "timeout", slipswitch.WhyPing)
	if got.ClientMessages != 1 || got.ClientBytes < 11 || got.ClientBytes > 11+8 { // and the answer to Close
		t.Errorf("got %+v; want one message", got.Traffic)
	}
}

// TestFirstCauseStays: of two ends that meet, the first is reported, whoever
// comes second.
func TestFirstCauseStays(t *testing.T) {
	closes := func(g *gateway, _, _ *peer) {
		for _, tunnel := range g.tunnels(1) {
			tunnel.Close(1001, "")
		}
	}
	closed := func(p *peer) {
		p.t.Helper()
		if f, err := p.frame(); err != nil || f.opcode != 8 {
			p.t.Errorf("got %+v, %v; want a Close frame", f, err)
		}
	}
	type act func(g *gateway, client, far *peer)
	for _, test := range []struct {
		name          string
		first, second act // the first waits until the gateway knows
		state         string
		why           slipswitch.Why
	}{
		{"the client's Close frame, the upstream's answer", func(_ *gateway, client, far *peer) {
			client.send(clientClose)
			far.expect(clientClose)
		}, func(_ *gateway, client, far *peer) {
			far.send(serverClose)
			client.expect(serverClose)
		}, "CC", ""},
		{"the upstream's Close frame, the client's answer", func(_ *gateway, client, far *peer) {
			far.send(serverClose)
			client.expect(serverClose)
		}, func(_ *gateway, client, far *peer) {
			client.send(clientClose)
			far.expect(clientClose)
		}, "UC", ""},
		{"the client's Close frame, the upstream's reset", func(_ *gateway, client, far *peer) {
			client.send(clientClose)
			far.expect(clientClose)
		}, func(_ *gateway, _, far *peer) { far.reset() }, "CC", ""},
		{"the upstream's Close frame, the client's reset", func(_ *gateway, client, far *peer) {
			far.send(serverClose)
			client.expect(serverClose)
		}, func(_ *gateway, client, _ *peer) { client.reset() }, "UC", ""},
		{"the client's Close frame, the gateway", func(_ *gateway, client, far *peer) {
			client.send(clientClose)
			far.expect(clientClose)
		}, closes, "CC", ""},
		{"the gateway, the client's reset", func(g *gateway, client, far *peer) {
			closes(g, client, far)
			closed(client)
			closed(far)
		}, func(_ *gateway, client, _ *peer) { client.reset() }, "GP", slipswitch.WhyAdmin},
		{"the gateway, the upstream's reset", func(g *gateway, client, far *peer) {
			closes(g, client, far)
			closed(client)
			closed(far)
		}, func(_ *gateway, _, far *peer) { far.reset() }, "GP", slipswitch.WhyAdmin},
		{"the gateway, the upstream's Close frame", func(g *gateway, client, far *peer) {
			closes(g, client, far)
			closed(far)
		}, func(_ *gateway, client, far *peer) { far.send(serverClose) }, "GP", slipswitch.WhyAdmin},
		{"the client's reset, the upstream's", func(_ *gateway, client, far *peer) {
			client.reset()
			far.expectReset()
		}, func(_ *gateway, _, far *peer) { far.reset() }, "CR", ""},
		{"the upstream's reset, the client's", func(_ *gateway, client, far *peer) {
			far.reset()
			client.expectReset()
		}, func(_ *gateway, client, _ *peer) { client.reset() }, "UR", ""},
		{"the client's FIN, which is no end yet, the gateway", func(_ *gateway, client, far *peer) {
			client.CloseWrite()
			far.expectEOF()
		}, closes, "GP", slipswitch.WhyAdmin},
		{"the client's FIN, the upstream's reset", func(_ *gateway, client, far *peer) {
			client.CloseWrite()
			far.expectEOF()
		}, func(_ *gateway, _, far *peer) { far.reset() }, "UR", ""},
		{"the administrator, the end of the gateway", closes, func(g *gateway, _, _ *peer) { g.Proxy.Close() }, "GP", slipswitch.WhyAdmin},
		{"the end of the gateway, the administrator", func(g *gateway, _, _ *peer) { g.Proxy.Close() }, closes, "GP", slipswitch.WhyShutdown},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			u := tunneling(t)
			g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
			client, far := g.open("/a", u)
			g.tunnels(1)
			test.first(g, client, far)
			test.second(g, client, far)
			client.Close()
			far.Close()
			r := g.report()
			if r.State != test.state || r.Why != test.why {
				t.Errorf("report: %s, by %s, %s, %q; want %s, %q", r.State, r.By, r.How, r.Why, test.state, test.why)
			}
		})
	}
}

// TestLinger: who has sent its FIN, and is not answered by one, has ended the
// tunnel half a minute later.
func TestLinger(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 s")
	}
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	client, far := g.open("/a", u)
	client.CloseWrite()
	far.expectEOF()
	client.SetReadDeadline(time.Now().Add(wait + 30*time.Second))
	if b, err := io.ReadAll(client); err != nil || len(b) > 0 {
		t.Errorf("got %q, %v; want EOF", b, err)
	}
	far.Close()
	r := g.wantCause("CF", "client", "FIN", slipswitch.WhyLinger)
	if took := r.Closed.Sub(r.Opened); took < 29*time.Second {
		t.Errorf("it took %v; want 30 s", took)
	}
}

// TestBrokenTLS: a client whose bytes are none of its connection's has not
// reset that, nor ended it.
func TestBrokenTLS(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	server := httptest.NewTLSServer(g.Proxy)
	defer server.Close()
	plain := g.dialTo(server.Listener.Addr().String())
	client := tls.Client(plain.TCPConn, &tls.Config{InsecureSkipVerify: true})
	if _, err := io.WriteString(client, handshake("/a")); err != nil {
		t.Fatal(err)
	}
	far := u.tunnel()
	far.send(serverText)
	for got := ""; !strings.HasSuffix(got, serverText); {
		b := make([]byte, 1000)
		n, err := client.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got += string(b[:n])
	}
	plain.send("\x17\x03\x03\x00\x05hello") // a record that nobody has encrypted
	plain.rest()
	far.rest()
	far.Close()
	g.wantCause("CW", "client", "write error", "")
}
