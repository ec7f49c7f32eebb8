package storetest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
)

// Sockets opens WebSockets through a proxy with the router, and lets each send
// and receive until the test ends. A WebSocket that fails fails the test: no
// fault of a store may reach it. The caller must put Route before Open.
type Sockets struct {
	Upstream string // its URL

	t    *testing.T
	echo *httptest.Server
}

// NewSockets starts the upstream of the sockets.
func NewSockets(t *testing.T) *Sockets {
	s := &Sockets{t: t}
	s.echo = httptest.NewServer(http.HandlerFunc(echo))
	s.Upstream = s.echo.URL
	t.Cleanup(s.echo.Close)
	return s
}

// Route returns the route for the sockets, at the path /sockets.
func (s *Sockets) Route() slipswitch.Route {
	return slipswitch.Route{Path: "/sockets", Upstreams: slipswitch.To(s.Upstream)}
}

func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, data) != nil {
			return
		}
	}
}

// Open opens n sockets.
func (s *Sockets) Open(router *slipswitch.Router, n int) {
	s.t.Helper()
	proxy := &slipswitch.Proxy{Router: router}
	front := httptest.NewServer(proxy)
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	s.t.Cleanup(func() {
		cancel()
		running.Wait()
		front.Close()
		end, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := proxy.Shutdown(end); err != nil {
			s.t.Errorf("shutdown: %v", err)
		}
	})
	url := "ws" + strings.TrimPrefix(front.URL, "http") + "/sockets"
	for i := range n {
		dial, stop := context.WithTimeout(ctx, patience)
		c, _, err := websocket.Dial(dial, url, nil)
		stop()
		if err != nil {
			s.t.Fatalf("socket %d: %v", i, err)
		}
		running.Go(func() { s.talk(ctx, c, i) })
	}
}

// talk sends ten messages a second, and expects each back.
func (s *Sockets) talk(ctx context.Context, c *websocket.Conn, i int) {
	defer c.CloseNow()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		want := fmt.Sprint(i, " ", n)
		err := c.Write(ctx, websocket.MessageText, []byte(want))
		var got []byte
		if err == nil {
			_, got, err = c.Read(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil || string(got) != want {
			s.t.Errorf("socket %d: message %d: got %q, %v", i, n, got, err)
			return
		}
	}
}
