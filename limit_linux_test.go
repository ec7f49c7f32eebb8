package slipswitch_test

import (
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// Near the limit of descriptors new connections and tunnels are refused, and
// old ones live: guarantee 10.
func TestDescriptorsDoNotRunOut(t *testing.T) {
	u := tunneling(t)
	p := &slipswitch.Proxy{Router: new(slipswitch.Router), Limits: slipswitch.Limits{SpareDescriptors: 30}}
	g := startGateway(t, p, route("/a", u))
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p}
	go server.Serve(p.Listen(plain))
	t.Cleanup(func() { server.Close() })
	g.addr = plain.Addr().String()

	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	low := before
	low.Cur = uint64(len(descriptors())) + 100
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)

	type ends struct{ client, far *peer }
	var open []ends
	refused := 0
	for range 60 {
		client := g.dial()
		client.send(handshake("/a"))
		a := client.answer("GET")
		if a.StatusCode == 101 {
			open = append(open, ends{client, u.tunnel()})
			continue
		}
		if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
			t.Fatalf("got %s %v; want 503 with Retry-After", a.Status, a.Header)
		}
		client.Close()
		refused++
	}
	if len(open) < 10 || refused < 20 {
		t.Errorf("%d tunnels opened, %d refused; want some of both", len(open), refused)
	}
	for _, e := range open {
		carries(e.client, e.far)
	}
	if log := g.log.String(); strings.Contains(log, "too many open files") {
		t.Errorf("descriptors ran out: %s", log)
	}
	for _, e := range open {
		e.client.Close()
		e.far.Close()
	}
	g.tunnels(0)
	until(t, "there is room again", func() bool {
		client := g.dial()
		defer client.Close()
		client.send(handshake("/a"))
		if client.answer("GET").StatusCode != 101 {
			return false
		}
		u.tunnel().Close()
		return true
	})
}

// Who is turned away is not waited for, should he say nothing.
func TestTurnedAwayInTime(t *testing.T) {
	p := &slipswitch.Proxy{Router: new(slipswitch.Router), Limits: slipswitch.Limits{SpareDescriptors: 1 << 30}}
	g := startGateway(t, p)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p}
	go server.Serve(p.Listen(plain))
	t.Cleanup(func() { server.Close() })
	g.dialTo(plain.Addr().String()).expectEOF()
}
