//go:build unix

package main_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
)

// Other implementations than ours answer the gateway's pings, and their sockets
// live; that of a client which is stopped is ended, and the report says why.
func TestForeignPeersAnswerPings(t *testing.T) {
	g := start(t)
	speak := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ended := conn.CloseRead(context.Background())
		conn.Write(ended, websocket.MessageText, []byte("hello"))
		select {
		case <-speak:
			conn.Write(ended, websocket.MessageText, []byte("still here"))
			<-ended.Done()
		case <-ended.Done():
		}
	}))
	t.Cleanup(server.Close)
	open := func(ctx context.Context, peer foreign, path string) (pid int, next func() (string, bool)) {
		g.put(slipswitch.Route{Path: path, Upstreams: slipswitch.To(server.URL), PingEvery: time.Second})
		next = peer.lines(t, ctx, "plain", "ws://"+g.public+path, "-")
		line, _ := next()
		if _, err := fmt.Sscanf(line, "open %d", &pid); err != nil {
			t.Fatalf("%s prints %q; want that it is open", peer.name, line)
		}
		return pid, next
	}
	peers := []foreign{nodePeer(t), pythonPeer(t)}
	living := make([]func() (string, bool), len(peers))
	stopped, kill := context.WithCancel(t.Context())
	defer kill()
	for i, peer := range peers {
		_, living[i] = open(context.Background(), peer, "/living/"+peer.name)
		pid, _ := open(stopped, peer, "/stopped/"+peer.name)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for _, peer := range peers {
		report := g.await("tunnel closed", func(l logLine) bool { return l["route"] == "/stopped/"+peer.name })
		if report["why"] != "ping" || report["by"] != "gateway" || report["clientBytes"] != 0.0 {
			t.Errorf("%s, stopped: got %v; want it ended by the gateway, why ping", peer.name, report)
		}
		// The living one is older, and has had as many pings.
		var list struct {
			Tunnels []struct{ ClientBytes int }
		}
		g.must("GET", "/v1/tunnels?path="+url.QueryEscape("/living/"+peer.name), nil, &list)
		if len(list.Tunnels) != 1 || list.Tunnels[0].ClientBytes != 0 {
			t.Errorf("%s: got %+v; want one tunnel, and nothing from the client", peer.name, list.Tunnels)
		}
	}
	close(speak)
	for i, peer := range peers {
		if line, _ := living[i](); line != "message still here" {
			t.Errorf("%s prints %q; want the message", peer.name, line)
		}
	}
}
