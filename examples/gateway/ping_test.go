package main_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
)

// A browser answers the gateway's pings without its page's doing, and the socket
// of a quiet tab stays open; neither is traffic of its tunnel.
func TestBrowserAnswersPings(t *testing.T) {
	g := start(t)
	server := newIDE(t)
	g.put(slipswitch.Route{Path: "/ide-1", StripPath: true, Upstreams: slipswitch.To(server.URL), PingEvery: time.Second})
	page := browser(t, "404 (Not Found)")("http://" + g.public + "/ide-1/")
	until(t, page, fmt.Sprintf(`globalThis.socket ??= new WebSocket(%q), socket.readyState === 1`, "ws://"+g.public+"/ide-1/echo"))
	// One that reads nothing answers nothing. When it has ended, the older one would have.
	mute, _, err := websocket.Dial(t.Context(), "ws://"+g.public+"/ide-1/echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.CloseNow()
	g.await("tunnel closed", func(l logLine) bool { return l["why"] == "ping" })
	var list struct {
		Tunnels []struct{ ClientBytes, UpstreamBytes int }
	}
	g.must("GET", "/v1/tunnels?path="+url.QueryEscape("/ide-1"), nil, &list)
	if len(list.Tunnels) != 1 || list.Tunnels[0].ClientBytes != 0 || list.Tunnels[0].UpstreamBytes != 0 {
		t.Errorf("got %+v; want one tunnel, and nothing in it", list.Tunnels)
	}
	until(t, page, `globalThis.echo === undefined ? (globalThis.echo = "", socket.onmessage = e => echo = e.data, socket.send("still here"), false) : echo === "still here"`)
	if closed, _ := g.logged("tunnel closed"); len(closed) > 1 {
		t.Errorf("closed: %v", closed)
	}
}
