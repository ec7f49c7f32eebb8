package slipswitch_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestDefaultLogger: without a Logger, what fails is told to the default one.
func TestDefaultLogger(t *testing.T) {
	var log logBuffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	p := new(slipswitch.Proxy)
	g := startGateway(t, p, slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	if a := g.do(request("GET", "/dead")); a.StatusCode != 502 {
		t.Errorf("got %s; want 502", a.Status)
	}
	receive(t, "all is logged", slipswitch.Logged(p))
	if got := log.String(); !strings.Contains(got, "status=502") {
		t.Errorf("the default logger has %q; want the 502", got)
	}
}

// TestShutdownWaitsForTheLog: a program that ends after it has lost nothing.
func TestShutdownWaitsForTheLog(t *testing.T) {
	var log logBuffer
	late := handlerFunc(func(r slog.Record) {
		time.Sleep(10 * time.Millisecond) // what a slow one takes
		log.Write([]byte(r.Message))
	})
	p := &slipswitch.Proxy{Logger: slog.New(late)}
	g := startGateway(t, p, slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	g.do(request("GET", "/dead"))
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := log.String(); !strings.Contains(got, "request failed") {
		t.Errorf("the log has %q; want the failure", got)
	}
}

type handlerFunc func(slog.Record)

func (f handlerFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f handlerFunc) WithGroup(string) slog.Handler            { return f }

func (f handlerFunc) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}

// TestStuckLogger: a logger that hangs stops neither requests, those that fail
// included, nor checks, nor tunnels of any kind.
func TestStuckLogger(t *testing.T) {
	release := make(chan struct{})
	stuck := make(chan struct{}, 1000)
	p := &slipswitch.Proxy{Logger: slog.New(handlerFunc(func(slog.Record) {
		stuck <- struct{}{}
		<-release
	}))}
	u, plain := tunneling(t), answering(t, ok("hello"))
	sick := startUpstream(t, func(received) string { return "HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n" })
	checked := slipswitch.Route{Path: "/checked", Upstreams: slipswitch.To(plain.url, sick.url), Check: slipswitch.Check{Path: "/healthz", Every: time.Second}}
	g := startHandler(t, p, opaqueConns(p), route("/ws", u), route("/plain", plain), checked,
		slipswitch.Route{Path: "/dead", Upstreams: slipswitch.To(refusing(t))})
	t.Cleanup(func() { close(release) }) // before the Shutdown
	g.do(request("GET", "/dead"))
	receive(t, "the logger hangs", stuck)

	g.do(request("GET", "/checked"))
	until(t, "an upstream fails its checks", func() bool {
		e, _ := g.Router.Table().At(slipswitch.Key{Host: host, Path: "/checked"})
		return len(p.Ejections(e)) > 0
	})
	for range 3 {
		if a := g.do(request("GET", "/dead")); a.StatusCode != 502 {
			t.Errorf("got %s; want 502", a.Status)
		}
		if a := g.do(request("GET", "/plain")); a.StatusCode != 200 {
			t.Errorf("got %s; want 200", a.Status)
		}
	}
	var ends []*peer
	for range 12 { // a burst
		client := g.dial()
		client.send(handshake("/ws"))
		if a := client.answer("GET"); a.StatusCode != 101 {
			t.Fatalf("got %s; want 101", a.Status)
		}
		far := u.tunnel()
		carries(client, far)
		ends = append(ends, client, far)
	}
	for _, e := range ends {
		e.Close()
	}
	g.tunnels(0)
}

// opaqueConns has tunnels carried by copying, which is logged.
func opaqueConns(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(afterWrite{w, func() {}}, r)
	})
}
