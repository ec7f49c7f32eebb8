package main_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
)

// SIGTERM: not ready at once, but serving; after the delay nothing new and no
// tunnel; streams until the window is over; exit status 0.
func TestSIGTERM(t *testing.T) {
	const delay = 3 * time.Second
	g := start(t, "-drain-delay="+delay.String(), "-drain-window=3s")
	server := newIDE(t)
	g.put(slipswitch.Route{Path: "/ide-1", StripPath: true, Upstreams: slipswitch.To(server.URL)})
	conn := dial(t, "ws://"+g.public+"/ide-1/echo", nil)
	response, err := client.Get("http://" + g.public + "/ide-1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	stream := bufio.NewReader(response.Body)
	probe := func(path string, want int) {
		t.Helper()
		response, err := client.Get("http://" + g.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %s; want %d", path, response.Status, want)
		}
	}
	probe("/readyz", 200)

	signalled := time.Now()
	g.signal(syscall.SIGTERM)
	g.await("draining", nil)
	probe("/readyz", 503)
	probe("/livez", 200)
	if got, _, err := g.get("/ide-1/"); err != nil || got.StatusCode != 200 || !got.Close {
		t.Errorf("during the delay: %v, %v; want 200 and Connection: close", got, err)
	}
	echoes(t, conn)
	late := dial(t, "ws://"+g.public+"/ide-1/echo", nil)
	echoes(t, late)

	for _, c := range []*websocket.Conn{conn, late} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
			t.Fatalf("a socket after the delay: %v; want it closed", err)
		}
		c.CloseNow() // as every client does
	}
	if elapsed := time.Since(signalled); elapsed < delay {
		t.Errorf("sockets closed after %v; want none within the delay, %v", elapsed, delay)
	}
	if conn, err := net.Dial("tcp", g.public); err == nil {
		conn.Close()
		t.Error("the gateway still listens when it closes tunnels")
	}
	for range 2 { // one line may have waited
		if _, err := stream.ReadString('\n'); err != nil {
			t.Fatalf("a plain stream within the window: %v", err)
		}
	}
	for err = nil; err == nil; {
		_, err = stream.ReadString('\n')
	}
	g.wait(0)
	closed, _ := g.logged("tunnel closed")
	for _, report := range closed {
		if report["by"] != "gateway" || report["why"] != "shutdown" {
			t.Errorf("close report %v; want one by the gateway, for its shutdown", report)
		}
	}
	if len(closed) != 2 {
		t.Errorf("%d close reports; want 2", len(closed))
	}
}

// A second signal ends it at once, whatever still waits.
func TestSecondSignal(t *testing.T) {
	g := start(t, "-drain-delay=1h")
	g.signal(syscall.SIGTERM)
	g.await("draining", nil)
	g.signal(syscall.SIGTERM)
	g.wait(1)
}

// Who interrupts it from a terminal waits for no load balancer.
func TestInterrupt(t *testing.T) {
	g := start(t, "-drain-delay=1h")
	g.signal(os.Interrupt)
	g.wait(0)
}

// An idle connection does not hold up the end, and a keep-alive one is let go
// with its answer.
func TestDrainWithoutTraffic(t *testing.T) {
	g := start(t, "-drain-window=1h")
	if response, _, err := g.get("/"); err != nil || response.StatusCode != http.StatusNotFound {
		t.Fatalf("%v, %v; want 404", response, err)
	}
	g.signal(syscall.SIGTERM)
	g.wait(0)
}
