package main_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// The chain in production: browser → control-plane proxy → gateway → IDE
// server, on one host. The parties have loopback addresses of their own, so
// that the gateway can tell them apart.
const (
	ideHost      = "ide.volcengine.com"
	browserIP    = "127.0.0.3"
	controlPlane = "127.0.0.2"
	workspaceA   = "/webapp-01/ide-wco5mu3vihefepmq77ap0"
	workspaceB   = "/webapp-01/ide-wcptaca7ihefdlmf7ci4g"
)

// from returns a transport whose connections come from an address.
func from(t *testing.T, address string) *http.Transport {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8 on its loopback interface")
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// newControlPlane starts the proxy in front of a gateway.
func newControlPlane(t *testing.T, gateway string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: gateway})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
			r.Out.Header.Set("X-Forwarded-Proto", "https") // it has ended TLS
		},
		Transport: from(t, controlPlane),
	})
	t.Cleanup(server.Close)
	return server
}

// ideRoute is the platform's Ingress as a route. Its times are divided by 40.
func ideRoute(path, upstream string) slipswitch.Route {
	return slipswitch.Route{
		Host: ideHost, Path: path, StripPath: true, Upstreams: slipswitch.To(upstream),
		MaxBody: 1 << 30, DialTimeout: 120 * time.Second, IdleTimeout: 120 * time.Second / 40,
	}
}

// headersIn reads the headers that an ide says it was sent.
func headersIn(t *testing.T, response *http.Response) (header http.Header) {
	t.Helper()
	if err := json.NewDecoder(response.Body).Decode(&header); err != nil {
		t.Fatal(err)
	}
	return header
}

// Forwarded headers are believed from the control plane, and from nobody else.
func TestTrustedProxies(t *testing.T) {
	g := start(t, "-trusted-proxies="+controlPlane)
	server := newIDE(t)
	g.put(ideRoute(workspaceA, server.URL))
	front := newControlPlane(t, g.public)
	ask := func(url, address string) http.Header {
		t.Helper()
		r, err := http.NewRequest("GET", url+workspaceA+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = ideHost
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("X-Real-IP", "203.0.113.9")
		response, err := (&http.Client{Transport: from(t, address)}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return headersIn(t, response)
	}
	for _, row := range []struct {
		name, url, from string
		want            map[string]string
	}{
		{"through the control plane", front.URL, browserIP, map[string]string{
			"X-Real-Ip": browserIP, "X-Forwarded-For": browserIP + ", " + controlPlane, "X-Forwarded-Proto": "https"}},
		{"past it", "http://" + g.public, browserIP, map[string]string{
			"X-Real-Ip": browserIP, "X-Forwarded-For": browserIP, "X-Forwarded-Proto": "http"}},
	} {
		got := ask(row.url, row.from)
		row.want["X-Forwarded-Host"], row.want["X-Forwarded-Prefix"] = ideHost, workspaceA
		for name, want := range row.want {
			if got.Get(name) != want {
				t.Errorf("%s: %s: %q; want %q", row.name, name, got.Get(name), want)
			}
		}
	}
}

// A pinger is the socket of a tab in which nobody types: pings are all that it sends.
type pinger struct {
	conn *websocket.Conn
	stop chan struct{}
}

// newPinger tells ended why it ended, unless it was stopped.
func newPinger(t *testing.T, front, path string, transport *http.Transport, ended chan<- error) *pinger {
	t.Helper()
	p := &pinger{stop: make(chan struct{})}
	p.conn = dial(t, front+path+"/echo", &websocket.DialOptions{Host: ideHost, HTTPClient: &http.Client{Transport: transport}})
	ctx := p.conn.CloseRead(context.Background())
	go func() {
		tick := time.NewTicker(5 * time.Second / 20)
		defer tick.Stop()
		for {
			if err := p.conn.Ping(ctx); err != nil {
				ended <- err
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			case <-p.stop:
				return
			}
		}
	}()
	return p
}

// Two workspaces, several tabs each, nobody types. Somebody else's workspace is
// created: not one socket closes, then or later. When one does for a reason, its
// report says who, how and why.
func TestSomebodyElsesWorkspace(t *testing.T) {
	g := start(t, "-trusted-proxies="+controlPlane)
	server, other := newIDE(t), newIDE(t)
	g.put(ideRoute(workspaceA, server.URL), ideRoute(workspaceB, other.URL))
	front := newControlPlane(t, g.public)
	transport := from(t, browserIP)
	const tabs = 4
	endedA, endedB := make(chan error, tabs), make(chan error, tabs)
	var shut *pinger
	for range tabs {
		shut = newPinger(t, front.URL, workspaceA, transport, endedA)
		newPinger(t, front.URL, workspaceB, transport, endedB)
	}

	g.put(ideRoute("/webapp-01/ide-somebodyelses", server.URL))
	// What closed them all came minutes later, and an idle timeout would come,
	// too: two of these without a closed socket are proof.
	select {
	case <-time.After(2 * ideRoute("", "").IdleTimeout):
	case err := <-endedA:
		t.Fatalf("a socket has closed: %v", err)
	case err := <-endedB:
		t.Fatalf("a socket has closed: %v", err)
	}
	if closed, _ := g.logged("tunnel closed"); len(closed) > 0 {
		t.Fatalf("closed: %v", closed)
	}

	// One tab is gone without a word, as a laptop that is shut.
	close(shut.stop)
	report := g.await("tunnel closed", nil)
	if report["by"] != "gateway" || report["how"] != "timeout" || report["why"] != "idle" ||
		report["route"] != ideHost+workspaceA || report["client"] != browserIP {
		t.Errorf("close report %v; want one by the gateway: timeout, idle", report)
	}

	// The IDE server of the other workspace stops.
	other.close()
	for range tabs {
		<-endedB
	}
	programtest.Eventually(t, "all sockets of one workspace have their report", func() bool {
		closed, _ := g.logged("tunnel closed")
		return len(closed) == 1+tabs
	})
	closed, _ := g.logged("tunnel closed")
	for _, report := range closed[1:] {
		if report["by"] != "upstream" || report["route"] != ideHost+workspaceB {
			t.Errorf("close report %v; want one by the upstream, of %s", report, workspaceB)
		}
	}
	select {
	case err := <-endedA:
		t.Errorf("a socket of the first workspace has closed: %v", err)
	default:
	}
}
