package slipswitch_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipswitch/slipswitch"
)

// TestPeersOutOfReach: the kernel gives a peer up whose machine is gone. A
// filter on the peer's socket drops whatever comes, and the gateway's has little
// patience.
func TestPeersOutOfReach(t *testing.T) {
	t.Parallel()
	u := tunneling(t)
	hurry := func(c net.Conn) {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err == nil {
			raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 300) })
		}
		if err != nil {
			t.Error(err)
		}
	}
	vanish := func(p *peer) {
		raw, err := p.SyscallConn()
		if err == nil {
			raw.Control(func(fd uintptr) {
				drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
				err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p := &slipswitch.Proxy{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			hurry(c)
		}
		return c, err
	}}
	g := startGateway(t, p, route("/a", u))
	server := httptest.NewUnstartedServer(g.Proxy)
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			hurry(c)
		}
	}
	server.Start()
	defer server.Close()
	for _, gone := range []string{"client", "upstream"} {
		client := g.dialTo(server.Listener.Addr().String())
		client.send(handshake("/a"))
		if a := client.answer("GET"); a.StatusCode != 101 {
			t.Fatalf("got %s", a.Status)
		}
		far := u.tunnel()
		state := "CT"
		if gone == "client" {
			vanish(client)
			far.send(serverText)
			far.expectReset()
		} else {
			state = "UT"
			vanish(far)
			client.send(clientText)
			client.expectReset()
		}
		if r := g.wantCause(state, slipswitch.By(gone), "timeout", ""); r.Errno != unix.ETIMEDOUT.Error() {
			t.Errorf("errno %q", r.Errno)
		}
	}
}

// TestKeepAlive: the kernel asks after both of a tunnel's peers.
func TestKeepAlive(t *testing.T) {
	u := tunneling(t)
	client, far := startGateway(t, new(slipswitch.Proxy), route("/a", u)).open("/a", u)
	for _, p := range []*peer{client, far} {
		until(t, "it is probed after 60 s", func() bool { return idleBeforeProbe(t, p.LocalAddr()) == 60 })
	}
}

// idleBeforeProbe returns after how many seconds this process's connection to
// an address is probed; 0 if never.
func idleBeforeProbe(t *testing.T, to net.Addr) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range all {
		fd, _ := strconv.Atoi(entry.Name())
		name, err := unix.Getpeername(fd)
		if peer, ok := name.(*unix.SockaddrInet4); err != nil || !ok || netip.AddrPortFrom(netip.AddrFrom4(peer.Addr), uint16(peer.Port)).String() != to.String() {
			continue
		}
		on, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		idle, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		return on * idle
	}
	t.Fatalf("no connection to %s", to)
	return 0
}
