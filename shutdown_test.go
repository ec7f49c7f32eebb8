package slipswitch_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"syscall"
)

func TestShutdown(t *testing.T) {
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	client, far := g.open("/a", u)
	g.tunnels(1)
	done := make(chan error)
	go func() { done <- g.Shutdown(t.Context()) }()
	both(client, far, 1012, "shutdown")
	if err := receive(t, "Shutdown returns", done); err != nil || len(g.reports) != 1 {
		t.Errorf("got %v with %d reports; want nil, with 1", err, len(g.reports))
	}
	g.wantReport(slipswitch.WhyShutdown)
	if a := g.do(handshake("/a")); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || !g.Draining() {
		t.Errorf("an upgrade after Shutdown: %s, Retry-After %q, draining %v; want 503", a.Status, a.Header.Get("Retry-After"), g.Draining())
	}
	g.Close() // no harm
}

// TestShutdownKeepsPace: over three quarters of the time that there is, and so in
// time.
func TestShutdownKeepsPace(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	const n = 60
	for range n {
		client, far := g.open("/a", u)
		go func() {
			client.frame()
			client.Close()
			far.Close()
		}()
	}
	g.tunnels(n)
	begin := time.Now()
	ctx, cancel := context.WithDeadline(t.Context(), begin.Add(4*time.Second))
	defer cancel()
	if err := g.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("it took %v; want 3 s", took)
	}
}

// Who takes nothing does not keep Shutdown longer than it may take.
func TestShutdownWithStalledReaders(t *testing.T) {
	u := tunneling(t)
	g := startGateway(t, new(slipswitch.Proxy), route("/a", u))
	client, far := g.open("/a", u)
	g.tunnels(1)
	far.SetWriteDeadline(time.Now().Add(wait))
	flood := wsFrame(0x82, false, strings.Repeat("x", 60_000))
	go func() {
		for {
			if _, err := io.WriteString(far.TCPConn, flood); err != nil {
				return
			}
		}
	}()
	until(t, "the flood stands", func() bool {
		before := g.tunnels(1)[0].Traffic().UpstreamBytes
		time.Sleep(50 * time.Millisecond)
		return before > 0 && before == g.tunnels(1)[0].Traffic().UpstreamBytes
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := g.Shutdown(ctx); err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("Shutdown returned %v after %v; want an error after 300 ms", err, time.Since(begin))
	}
	client.reset()
	if _, err := far.rest(); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("far end: %v", err)
	}
	g.wantReport(slipswitch.WhyShutdown)
}

// TestShutdownWaitsForReports: its return is the end of all.
func TestShutdownWaitsForReports(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	var told []uint64
	g := startGateway(t, &slipswitch.Proxy{TunnelClosed: func(r slipswitch.CloseReport) {
		entered <- struct{}{}
		<-leave
		told = append(told, r.Tunnel)
	}}, route("/a", u))
	const n = 5
	for range n {
		client, far := g.open("/a", u)
		go func() { client.frame(); client.Close(); far.Close() }()
	}
	open := g.tunnels(n)
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Shutdown(short); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want the context's error", err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Shutdown(context.Background()) }()
	for i := range n {
		receive(t, "the hook is called", entered)
		select {
		case err := <-done:
			t.Fatalf("Shutdown returned %v before report %d", err, i)
		default:
		}
		leave <- struct{}{}
	}
	if err := receive(t, "Shutdown returns", done); err != nil {
		t.Error(err)
	}
	if len(told) != n {
		t.Errorf("got %d reports", len(told))
	}
	slices.Sort(told)
	for i, tunnel := range open {
		if told[i] != tunnel.ID() {
			t.Errorf("got reports of %v", told)
		}
	}
}

// TestShutdownCutsWhatIsLeft: when its time is over, peers that do not answer,
// or read nothing, are not waited for, and nobody's report is missing.
func TestShutdownCutsWhatIsLeft(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	g := startGateway(t, &slipswitch.Proxy{}, route("/a", u))
	const n = 20
	flooding := make(chan struct{}, n)
	for i := range n {
		client, far := g.open("/a", u)
		if i%2 == 0 {
			continue
		}
		go func() {
			flood := wsFrame(0x82, false, strings.Repeat("x", 60_000))
			for client.SetReadDeadline(time.Now().Add(wait)); ; {
				if _, err := io.WriteString(far.TCPConn, flood); err != nil {
					break
				}
			}
			flooding <- struct{}{}
		}()
	}
	g.tunnels(n)
	short, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := g.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v; want the context's error", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if len(g.reports) != n {
		t.Errorf("%d reports; want %d", len(g.reports), n)
	}
	for range len(g.reports) {
		g.wantReport(slipswitch.WhyShutdown)
	}
	for range n / 2 {
		receive(t, "a flood is over", flooding)
	}
}

// TestShutdownOpensNoTunnel: upgrades are refused from its begin on, also one
// whose upstream answers later; plain requests are not its business.
func TestShutdownOpensNoTunnel(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	u := startScript(t, func(u *upstream, p *peer) bool {
		r, err := p.request()
		if err != nil {
			return false
		}
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(p.TCPConn, ok("plain", "Connection: close"))
			return false
		}
		asked <- struct{}{}
		<-answer
		io.WriteString(p.TCPConn, switching())
		p.rest()
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	client.send(handshake("/"))
	receive(t, "the upstream is asked", asked)
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	close(answer)
	for _, a := range []answerer{client, doer{g, handshake("/")}} {
		if a := a.answer("GET"); a.StatusCode != 503 || !a.Close || a.Header.Get("Retry-After") != "1" || a.Header.Get("Proxy-Status") == "" {
			t.Errorf("got %s %v; want 503", a.Status, a.Header)
		}
	}
	if a := g.get("/"); a.body != "plain" {
		t.Errorf("got %s", a.Status)
	}
	if len(g.reports) > 0 {
		t.Errorf("got report %+v", <-g.reports)
	}
}

type answerer interface{ answer(method string) answer }

type doer struct {
	g   *gateway
	raw string
}

func (d doer) answer(string) answer { return d.g.do(d.raw) }

// TestShutdownWaitsForOpening: a tunnel that is about to open when Shutdown
// begins is closed and reported when it returns.
func TestShutdownWaitsForOpening(t *testing.T) {
	t.Parallel()
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.request()
		io.WriteString(p.TCPConn, switching())
		p.r.ReadByte() // a Close frame, or the end
		return false
	})
	opening, goOn := make(chan struct{}), make(chan struct{})
	p := &slipswitch.Proxy{}
	g := startHandler(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.ServeHTTP(slowHijack{w, opening, goOn}, r)
	}), route("/", u))
	client := g.dial()
	client.send(handshake("/"))
	receive(t, "a client is answered", opening)
	done := make(chan error, 1)
	go func() { done <- g.Shutdown(context.Background()) }()
	until(t, "upgrades are refused", func() bool {
		other := g.dial()
		defer other.Close()
		other.send(handshake("/"))
		select {
		case <-opening: // it was in time
			goOn <- struct{}{}
			return false
		case status := <-statusOf(other):
			return status == 503
		}
	})
	if g.get("/").StatusCode == 0 || len(done) > 0 {
		t.Errorf("Shutdown returned %v before the tunnel was opened", <-done)
	}
	before := len(g.reports)
	goOn <- struct{}{}
	go func() {
		client.answer("GET")
		client.Close()
	}()
	if err := receive(t, "Shutdown returns", done); err != nil {
		t.Error(err)
	}
	if len(g.reports) == before {
		t.Error("no report when Shutdown returned")
	}
}

// statusOf reads a status line in the background.
func statusOf(p *peer) <-chan int {
	status := make(chan int, 1)
	go func() {
		p.SetReadDeadline(time.Now().Add(wait))
		r, err := http.ReadResponse(p.r, nil)
		if err == nil {
			status <- r.StatusCode
		}
	}()
	return status
}

type slowHijack struct {
	http.ResponseWriter
	opening, goOn chan struct{}
}

func (w slowHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.opening <- struct{}{}
	<-w.goOn
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// TestShutdownDuringUpgrades: whatever was opened is closed and reported when
// it returns.
func TestShutdownDuringUpgrades(t *testing.T) {
	t.Parallel()
	u := startScript(t, func(u *upstream, p *peer) bool {
		if _, err := p.request(); err == nil {
			io.WriteString(p.TCPConn, switching())
			p.frame() // which is answered by leaving
		}
		return false
	})
	for range 8 {
		g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
		opened := make(chan bool)
		for range 8 {
			go func() {
				client := g.dial()
				client.send(handshake("/"))
				head, _ := client.head()
				client.frame() // which is answered by leaving
				client.Close()
				opened <- strings.HasPrefix(head, "HTTP/1.1 101 ")
			}()
		}
		until(t, "a tunnel is open", func() bool { return len(slices.Collect(g.Tunnels())) > 0 })
		if err := g.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		reports := len(g.reports)
		tunnels := 0
		for range 8 {
			if receive(t, "a client is answered or refused", opened) {
				tunnels++
			}
		}
		if reports != tunnels || len(g.reports) != tunnels {
			t.Errorf("%d tunnels, %d reports when Shutdown returned, %d in the end", tunnels, reports, len(g.reports))
		}
	}
}

// TestShutdownExample: what is in flight comes to its end.
func TestShutdownExample(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	u := startUpstream(t, func(received) string {
		close(asked)
		<-answer
		return ok("whole", "Connection: close")
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	client.send(request("GET", "/"))
	receive(t, "the upstream is asked", asked)
	ended := make(chan error, 1)
	go func() { ended <- shutDown(g.server, g.Proxy) }()
	until(t, "Shutdown has begun", g.Draining)
	select {
	case err := <-ended:
		t.Errorf("it has returned with %v while a request is in flight", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(answer)
	if a := client.answer("GET"); a.body != "whole" || a.err != nil {
		t.Errorf("got %s %q, %v", a.Status, a.body, a.err)
	}
	if err := receive(t, "it returns", ended); err != nil {
		t.Error(err)
	}
}
