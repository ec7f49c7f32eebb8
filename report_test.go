package slipswitch_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
)

// What the peers have said with their Close frames is told, and cannot break a
// log or a terminal.
func TestReportedCloseFrames(t *testing.T) {
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	for _, test := range []struct {
		client, upstream string // frames
		want, log        string
	}{
		{closeFrame(true, 1000, "bye"), closeFrame(false, 1000, "bye"),
			`"state":"CC","by":"client","how":"close frame","clientClose":{"code":1000,"reason":"bye"},"upstreamClose":{"code":1000,"reason":"bye"}`,
			`state=CC by=client how="close frame" clientCode=1000 clientReason=bye upstreamCode=1000 upstreamReason=bye`},
		{closeFrame(true, 4000, "\x1b[2J\n\"x\xff"), "",
			`"clientClose":{"code":4000,"reason":"\\x1b[2J\\n\\\"x\\xff"},"route"`,
			`clientCode=4000 clientReason="\\x1b[2J\\n\\\"x\\xff" route=`},
		{wsFrame(0x88, true, ""), "", `"clientClose":{"code":1005},"route"`, `clientCode=1005 route=`},
	} {
		client, far := g.open("/a?token=secret", u)
		client.send(test.client)
		far.expect(test.client)
		if test.upstream != "" {
			far.send(test.upstream)
			client.expect(test.upstream)
		}
		far.Close()
		client.expectEOF()
		client.Close()
		r := g.report()
		told, err := json.Marshal(r)
		if err != nil || !bytes.Contains(told, []byte(test.want)) {
			t.Errorf("got %s, %v; want %s in it", told, err, test.want)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("tunnel closed", slog.Any("", r))
		if !strings.Contains(log.String(), test.log) || strings.Count(log.String(), "\n") != 1 || strings.Contains(log.String(), "secret") {
			t.Errorf("got %s; want %s in it", log.String(), test.log)
		}
	}
	kept := g.CloseReports()
	if len(kept) != 3 || kept[0].Tunnel != 1 || kept[2].Tunnel != 3 {
		t.Errorf("CloseReports: got %+v; want the three", kept)
	}
}

func TestReportsAreKept(t *testing.T) {
	q := slipswitch.NewReports(nil, func(slipswitch.Burst) {})
	for i := range uint64(1500) {
		q.Add(slipswitch.CloseReport{Tunnel: i, By: "client", How: "FIN", Closed: time.Unix(int64(i*10), 0), Value: "x"})
	}
	kept := q.CloseReports()
	if len(kept) != 1000 || kept[0].Tunnel != 500 || kept[999].Tunnel != 1499 || kept[0].Value != nil {
		t.Errorf("got %d from %d to %d; want 1000 from 500 to 1499", len(kept), kept[0].Tunnel, kept[999].Tunnel)
	}
}

// A hook that hangs does not make the queue grow for ever, and is given what
// waits, and what comes then, when it returns.
func TestHangingHook(t *testing.T) {
	hangs, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var got []uint64
	q := slipswitch.NewReports(func(r slipswitch.CloseReport) {
		once.Do(func() {
			close(hangs)
			<-release
		})
		got = append(got, r.Tunnel)
	}, func(slipswitch.Burst) {})
	for i := range uint64(slipswitch.MostReports + 10) {
		q.Add(slipswitch.CloseReport{Tunnel: i, By: "client", How: "FIN"})
	}
	receive(t, "the hook hangs", hangs)
	if kept := q.CloseReports(); kept[len(kept)-1].Tunnel != slipswitch.MostReports+9 {
		t.Errorf("the last report kept is of %d", kept[len(kept)-1].Tunnel)
	}
	close(release)
	receive(t, "all is handed over", q.Done())
	q.Add(slipswitch.CloseReport{Tunnel: 1 << 20, By: "client", How: "FIN"})
	receive(t, "all is handed over", q.Done())
	if n := len(got); n != slipswitch.MostReports+1 || got[n-2] != slipswitch.MostReports-1 || got[n-1] != 1<<20 {
		t.Errorf("%d reports, the last of %d; want %d, then one", n, got[max(0, n-1)], slipswitch.MostReports)
	}
}

func TestBursts(t *testing.T) {
	a, b := slipswitch.Key{Path: "/a"}, slipswitch.Key{Path: "/b"}
	type closes struct {
		n     int
		every time.Duration
		slipswitch.CloseReport
	}
	of := func(by slipswitch.By, route slipswitch.Key, upstream, client string) slipswitch.CloseReport {
		return slipswitch.CloseReport{By: by, How: "RST", Route: route, Upstream: upstream, Client: client}
	}
	behind := func(peer, client string) slipswitch.CloseReport {
		r := of("client", a, "u", client)
		r.Peer = peer
		return r
	}
	for _, test := range []struct {
		name   string
		closes []closes
		want   string
	}{
		{"few", []closes{{9, 0, of("upstream", a, "u", "c")}}, ""},
		{"slow", []closes{{50, 1100 * time.Millisecond, of("upstream", a, "u", "c")}}, ""},
		{"all at once", []closes{{10, 0, of("upstream", a, "u", "c")}}, "10 by upstream, /a u c within 0s, told after 1s; "},
		{"of one upstream", []closes{{10, 0, of("upstream", a, "u", "c")}, {5, 100 * time.Millisecond, of("upstream", b, "u", "d")}},
			"15 by upstream,  u  within 500ms, told after 1.5s; "},
		{"two causes", []closes{{10, 0, of("upstream", a, "u", "c")}, {20, 0, of("client", a, "u", "c")}},
			"10 by upstream, /a u c within 0s, told after 1s; 20 by client, /a u c within 0s, told after 1s; "},
		{"long", []closes{{100, 150 * time.Millisecond, of("gateway", a, "u", "c")}},
			"67 by gateway, /a u c within 9.9s, told after 10.15s; 33 by gateway, /a u c within 4.8s, told after 16s; "},
		{"of one balancer", []closes{{6, 0, behind("10.0.0.2", "c")}, {6, 0, behind("10.0.0.2", "d")}}, "12 by client, /a u  from 10.0.0.2 within 0s, told after 1s; "},
		{"of two balancers", []closes{{6, 0, behind("10.0.0.2", "c")}, {6, 0, behind("10.0.0.3", "c")}}, "12 by client, /a u c within 0s, told after 1s; "},
		{"twice", []closes{{10, 0, of("upstream", a, "u", "c")}, {1, 3 * time.Second, of("gateway", a, "u", "c")}, {10, 0, of("upstream", a, "u", "c")}},
			"10 by upstream, /a u c within 0s, told after 1s; 10 by upstream, /a u c within 0s, told after 4s; "},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				told := make(map[slipswitch.By]string)
				var order []slipswitch.By
				q := slipswitch.NewReports(nil, func(b slipswitch.Burst) {
					path := ""
					if b.Route != nil {
						path = b.Route.Path
					}
					if told[b.By] == "" {
						order = append(order, b.By)
					}
					client := b.Client
					if b.Peer != "" {
						client += " from " + b.Peer
					}
					told[b.By] += fmt.Sprintf("%d by %s, %s %s %s within %v, told after %v; ",
						b.Tunnels, b.By, path, b.Upstream, client, b.Last.Sub(b.First), time.Since(begin))
				})
				for _, c := range test.closes {
					for range c.n {
						time.Sleep(c.every)
						c.Closed = time.Now()
						q.Add(c.CloseReport)
					}
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				got := told["upstream"] + told["client"] + told["gateway"]
				if got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
			})
		})
	}
}

// Hooks are called in the order of the ends, one at a time, and nothing waits
// for one that is slow.
func TestSlowHook(t *testing.T) {
	u := tunneling(t)
	called, next := make(chan slipswitch.CloseReport), make(chan struct{})
	running := false // only the hook's goroutine touches it
	g := startGateway(t, &slipswitch.Proxy{TunnelClosed: func(r slipswitch.CloseReport) {
		if running {
			t.Error("two hooks at a time")
		}
		running = true
		called <- r
		<-next
		running = false
	}}, route("/a", u))
	client, far := g.open("/a", u)
	const n = 20
	for i := range n {
		c, f := g.open("/a", u)
		g.tunnels(2)
		c.Close()
		f.rest()
		f.Close()
		g.tunnels(1)
		if i == 0 {
			receive(t, "the hook is called", called) // and there it hangs
		}
	}
	carries(client, far)
	for i := range uint64(n) {
		next <- struct{}{}
		if i+1 < n {
			if r := receive(t, "the hook is called again", called); r.Tunnel != i+3 {
				t.Errorf("report %d is of tunnel %d; want %d", i+1, r.Tunnel, i+3)
			}
		}
	}
	go func() {
		<-called
		next <- struct{}{}
	}()
	client.Close()
	far.Close()
}

// A killer ends tunnels at random, and writes down whom it has killed and how.
// The reports agree.
func TestReportsAgreeWithTheKiller(t *testing.T) {
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	type kill struct{ by, how string }
	log := make(map[uint64]kill)
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for range 150 {
		client, far := g.open("/a", u)
		tunnel := g.tunnels(1)[0]
		carries(client, far)
		victim, killer := client, far
		k := kill{by: "upstream"}
		if rng.IntN(2) == 0 {
			killer, victim, k.by = client, far, "client"
		}
		switch rng.IntN(4) {
		case 0:
			k.how = "RST"
			killer.reset()
			victim.rest()
		case 1:
			k.how = "FIN"
			killer.CloseWrite()
			victim.expectEOF()
		case 2:
			k.how = "close frame"
			killer.send(closeFrame(killer == client, 1001, ""))
			victim.frame()
		case 3:
			k = kill{"gateway", "policy"}
			tunnel.Close(1001, "")
			victim.frame()
			killer.frame()
		}
		client.Close()
		far.Close()
		log[tunnel.ID()] = k
		g.tunnels(0)
	}
	for range log {
		r := g.report()
		if got := (kill{string(r.By), string(r.How)}); got != log[r.Tunnel] {
			t.Errorf("tunnel %d: reported %v; was %v", r.Tunnel, got, log[r.Tunnel])
		}
		delete(log, r.Tunnel)
	}
}

// BenchmarkReport is what a report costs whoever closes a tunnel.
func BenchmarkReport(b *testing.B) {
	q := slipswitch.NewReports(func(slipswitch.CloseReport) {}, func(slipswitch.Burst) {})
	r := slipswitch.CloseReport{By: "upstream", How: "RST", Upstream: "http://10.0.0.7:8080", Closed: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		q.Add(r)
	}
	if done := q.Done(); done != nil {
		<-done
	}
}

func TestLogLeavesOutEmptyFieldsOfAChange(t *testing.T) {
	for _, test := range []struct {
		change *slipswitch.TableChange
		want   string
	}{
		{nil, ""},
		{&slipswitch.TableChange{Origin: "ada", Version: 3}, "changeOrigin=ada changeVersion=3"},
		{&slipswitch.TableChange{Owner: "team", Version: 3}, "changeOwner=team changeVersion=3"},
		{&slipswitch.TableChange{Owner: "team", Origin: "ada"}, "changeOwner=team changeOrigin=ada"},
	} {
		report := slipswitch.CloseReport{By: slipswitch.ByGateway, How: slipswitch.HowPolicy, Change: test.change}
		var got []string
		for _, attr := range report.LogValue().Group() {
			if strings.HasPrefix(attr.Key, "change") {
				got = append(got, attr.String())
			}
		}
		if got := strings.Join(got, " "); got != test.want {
			t.Errorf("%+v: got %q; want %q", test.change, got, test.want)
		}
	}
}
