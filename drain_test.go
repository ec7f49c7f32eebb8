package slipswitch_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
)

func TestTunnelClose(t *testing.T) {
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	for _, test := range []struct {
		code     uint16
		reason   string
		wantCode uint16
		want     string
	}{
		{0, "", 1001, "admin"},
		{0, "enough", 1001, "enough"},
		{4321, "", 4321, "admin"},
		{4321, "one\nline \"more\"", 4321, "one\nline \"more\""},
		{4321, strings.Repeat("a", 124), 4321, strings.Repeat("a", 123)},
		{4321, strings.Repeat("é", 62), 4321, strings.Repeat("é", 61)},
		{4321, "bad \xff UTF-8", 4321, "bad "},
	} {
		client, far := g.open("/a", u)
		tunnel := g.tunnels(1)[0]
		for _, code := range []uint16{1, 999, 1004, 1005, 1006, 1015, 2999, 5000} {
			if err := tunnel.Close(code, "x"); err == nil {
				t.Errorf("code %d: no error", code)
			}
		}
		carries(client, far)
		if err := tunnel.Close(test.code, test.reason); err != nil {
			t.Fatal(err)
		}
		both(client, far, test.wantCode, test.want)
		g.wantReport(slipswitch.WhyAdmin)
		if err := tunnel.Close(4321, "again"); err != nil {
			t.Error(err)
		}
	}
}

func TestDrain(t *testing.T) {
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u), route("/b", u))
	if _, err := g.Drain(nil, 0, 1005, ""); err == nil {
		t.Error("code 1005: no error")
	}
	const n = 20
	type ends struct{ client, far *peer }
	var a []ends
	for range n {
		client, far := g.open("/a", u)
		a = append(a, ends{client, far})
	}
	client, far := g.open("/b", u)
	g.tunnels(n + 1)
	begin := time.Now()
	of := func(path string) func(*slipswitch.Tunnel) bool {
		return func(t *slipswitch.Tunnel) bool { return t.Route().Path == path }
	}
	if got, err := g.Drain(of("/a"), time.Hour, 1012, "update"); got != n || err != nil {
		t.Fatalf("got %d, %v; want %d", got, err, n)
	}
	if got, err := g.Drain(of("/a"), time.Second, 4000, "faster"); got < n-1 || err != nil { // a drain during a drain
		t.Fatalf("got %d, %v; want %d", got, err, n)
	}
	for _, e := range a {
		f, err := e.client.frame()
		if err != nil || f.opcode != 8 || f.payload[2:] != "update" && f.payload[2:] != "faster" {
			t.Errorf("got %+v, %v; want a Close frame", f, err)
		}
		e.client.Close()
		e.far.Close()
	}
	if took := time.Since(begin); took < 500*time.Millisecond || took > 10*time.Second {
		t.Errorf("the drain took %v; want about 1 s", took)
	}
	for range n {
		g.wantReport(slipswitch.WhyDrain)
	}
	carries(client, far)
	g.tunnels(1) // a report comes before its tunnel is gone
	if got, err := g.Drain(nil, 0, 0, ""); got != 1 || err != nil {
		t.Fatalf("got %d, %v; want 1", got, err)
	}
	both(client, far, 1001, "drain")
	g.wantReport(slipswitch.WhyDrain)
}

// TestEndWithThe101: a tunnel is among the open ones, and can be ended, when its
// client has the 101.
func TestEndWithThe101(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*slipswitch.Proxy, *slipswitch.Tunnel){
		"drain": func(p *slipswitch.Proxy, _ *slipswitch.Tunnel) { p.Drain(nil, 0, 4001, "now") },
		"close": func(_ *slipswitch.Proxy, t *slipswitch.Tunnel) { t.Close(4001, "now"); t.Close(4002, "later") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := tunneling(t)
			p := new(slipswitch.Proxy)
			var seen []*slipswitch.Tunnel
			g := startHandler(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				p.ServeHTTP(afterWrite{w, func() {
					for tunnel := range p.Tunnels() {
						seen = append(seen, tunnel)
						if got := tunnel.Traffic(); got != (slipswitch.Traffic{}) {
							t.Errorf("it has carried %+v; want nothing", got)
						}
						end(p, tunnel)
					}
				}}, r)
			}), route("/", u))
			client, far := g.open("/", u)
			for _, peer := range []*peer{client, far} {
				if f, err := peer.frame(); err != nil || f.payload != "\x0f\xa1now" {
					t.Errorf("got %+v, %v; want a Close frame with 4001", f, err)
				}
				peer.Close()
			}
			if r := g.report(); len(seen) != 1 || seen[0].ID() != r.Tunnel || r.How != slipswitch.HowPolicy {
				t.Errorf("the open tunnels were %v, and the report %+v", seen, r)
			}
		})
	}
}

// afterWrite calls then when the 101 has been written.
type afterWrite struct {
	http.ResponseWriter
	then func()
}

func (w afterWrite) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	return &writtenOnce{Conn: conn, then: sync.OnceFunc(w.then)}, buffered, err
}

type writtenOnce struct {
	net.Conn
	then func()
}

func (c *writtenOnce) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.then()
	return n, err
}

// The pace is even, whatever the window; a few are not kept waiting for a long one.
func TestSpread(t *testing.T) {
	for _, test := range []struct {
		n          int
		window     time.Duration
		from, upTo time.Duration
	}{
		{0, time.Minute, 0, 0},
		{5, 0, 0, 0},
		{2, time.Hour, 0, 200 * time.Millisecond},
		{10_000, 30 * time.Second, 29990 * time.Millisecond, 30 * time.Second},
	} {
		t.Run(fmt.Sprint(test.n, " in ", test.window), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				seconds := make(map[int]int)
				slipswitch.Spread(test.n, test.window, func() { seconds[int(time.Since(begin)/time.Second)]++ })
				took, most := time.Since(begin), 0
				for _, n := range seconds {
					most = max(most, n)
				}
				if took < test.from || took > test.upTo {
					t.Errorf("took %v; want %v to %v", took, test.from, test.upTo)
				}
				if mean := float64(test.n) / test.window.Seconds(); test.n > 100 && float64(most) > 1.01*mean {
					t.Errorf("%d in one second; want at most 1.01 times the mean, %.0f", most, mean)
				}
			})
		})
	}
}

// TestProxyClose: all ends at once, and nothing is opened any more.
func TestProxyClose(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	client, far := g.open("/a", u)
	g.Close()
	both(client, far, 1012, "shutdown")
	g.wantReport(slipswitch.WhyShutdown)
	if a := g.do(handshake("/a")); a.StatusCode != 503 || !g.Draining() {
		t.Errorf("an upgrade after Close: %s, draining %v; want 503", a.Status, g.Draining())
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

// wantReport wants the next report to be of the gateway's doing.
func (g *gateway) wantReport(why slipswitch.Why) {
	g.t.Helper()
	if r := g.report(); r.By != "gateway" || r.How != "policy" || r.Why != why {
		g.t.Errorf("report: by %s, %s, %s; want by gateway, policy, %s", r.By, r.How, r.Why, why)
	}
}
