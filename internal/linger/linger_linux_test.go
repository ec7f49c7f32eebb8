package linger_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/internal/linger"
)

// blocked returns how many of the closed connections to peers block our port, in
// TIME_WAIT.
func blocked(t *testing.T, ours, theirs []*net.TCPConn) (n int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	end := func(conn net.Conn) string { return fmt.Sprintf("0100007F:%04X", conn.LocalAddr().(*net.TCPAddr).Port) }
	for i := range ours {
		if strings.Contains(string(table), end(ours[i])+" "+end(theirs[i])+" 06 ") {
			n++
		}
	}
	return n
}

// A peer that reads sees an ordinary end after all that was sent. One that writes
// then gets a reset, and our port is free.
func TestHangUp(t *testing.T) {
	ours, theirs := connect(t)
	io.WriteString(ours, "last")
	linger.HangUp(ours)
	if got, err := io.ReadAll(theirs); string(got) != "last" || err != nil {
		t.Errorf("the peer read %q, %v; want last", got, err)
	}
	if _, err := io.Copy(theirs, endless{}); err == nil {
		t.Error("the peer could write on")
	}
	theirs.Close()
	if blocked(t, []*net.TCPConn{ours}, []*net.TCPConn{theirs}) > 0 {
		t.Error("our port is blocked")
	}
}

// Of more connections than may linger the oldest are hung up on, and the others
// when their descriptors are needed.
func TestLingeringIsBounded(t *testing.T) {
	const n = linger.Most + 50
	var conns linger.Conns
	var ours, theirs []*net.TCPConn
	for i := range n {
		one, other := connect(t)
		ours, theirs = append(ours, one), append(theirs, other)
		conns.Add(one, false)
		if got, want := conns.Len(), min(i+1, linger.Most); got > want {
			t.Fatalf("after %d: %d linger; want %d", i+1, got, want)
		}
	}
	closed := 0
	for _, conn := range ours {
		if isClosed(conn) {
			closed++
		}
	}
	if closed < n-linger.Most || !isClosed(ours[0]) {
		t.Errorf("%d of %d are closed; want the %d oldest", closed, n, n-linger.Most)
	}
	conns.HangUp()
	for i, conn := range theirs {
		if got, err := io.ReadAll(conn); len(got) > 0 || err != nil {
			t.Fatalf("peer %d read %q, %v", i, got, err)
		}
		conn.Close()
	}
	if n := blocked(t, ours, theirs); n > 0 {
		t.Errorf("%d ports are blocked", n)
	}
}
