package slipswitch_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// blocked returns how many of the connections to an upstream block a port of ours
// for a minute, since we have been the first to close them.
func (u *upstream) blocked() (n int) {
	u.t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		u.t.Fatal(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.conns {
		end := func(a net.Addr) string { return fmt.Sprintf("0100007F:%04X", a.(*net.TCPAddr).Port) }
		if strings.Contains(string(table), end(p.RemoteAddr())+" "+end(p.LocalAddr())+" 06 ") {
			n++
		}
	}
	return n
}

// TestHandshakesBlockNoPorts: tabs of stopped workspaces retry for ever.
func TestHandshakesBlockNoPorts(t *testing.T) {
	const refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
	for name, test := range map[string]struct {
		reply string
		ends  bool // at once, else when we do
	}{
		"refused, and ended":   {refusal, true},
		"refused":              {refusal, false},
		"half an answer":       {"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nhalf", true},
		"invalid 101":          {strings.Replace(switching(), accept, key, 1), false},
		"ended without a word": {"", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := startScript(t, func(u *upstream, p *peer) bool {
				if _, err := p.request(); err == nil {
					io.WriteString(p.TCPConn, test.reply)
				}
				if !test.ends {
					p.rest()
				}
				return false
			})
			g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
			for range 50 {
				client := g.dial()
				client.send(handshake("/"))
				client.rest0()
				client.Close()
			}
			until(t, "none lingers", func() bool { return g.Lingering() == 0 })
			if n := u.blocked(); n > 0 {
				t.Errorf("%d of 50 ports are blocked", n)
			}
		})
	}
}

// TestAbortsBlockNoPorts: neither do plain requests that their clients abort.
func TestAbortsBlockNoPorts(t *testing.T) {
	t.Parallel()
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		io.WriteString(p.TCPConn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
		if got, err := p.rest(); got != "" || err != nil {
			t.Errorf("got %q, %v; want EOF", got, err)
		}
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	for range 50 {
		client := g.dial()
		client.send(request("GET", "/"))
		client.head()
		client.reset()
	}
	until(t, "no request is served", func() bool { return g.running.Load() == 0 })
	if n := u.blocked(); n > 0 {
		t.Errorf("%d of 50 ports are blocked", n)
	}
}
