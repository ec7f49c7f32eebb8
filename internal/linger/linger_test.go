package linger_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/linger"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wait = 20 * time.Second

// connect returns the two ends of a TCP connection.
func connect(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialed, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	theirs = accepted.(*net.TCPConn)
	theirs.SetDeadline(time.Now().Add(wait))
	return dialed.(*net.TCPConn), theirs
}

// over waits until no connection lingers, and our end of one is closed.
func over(t *testing.T, conns *linger.Conns, ours net.Conn) {
	t.Helper()
	for end := time.Now().Add(wait); conns.Len() > 0 || !isClosed(ours); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections linger; closed: %v", conns.Len(), isClosed(ours))
		}
	}
}

// isClosed reports whether our end of a connection is closed.
func isClosed(conn net.Conn) bool { return conn.SetDeadline(time.Time{}) != nil }

// What the upstream still sends is dropped, and once it ends the connection, so do
// we.
func TestEndedByUpstream(t *testing.T) {
	for _, answered := range []bool{true, false} {
		var conns linger.Conns
		ours, theirs := connect(t)
		io.WriteString(theirs, "more")
		conns.Add(ours, answered)
		io.WriteString(theirs, "and more")
		theirs.CloseWrite()
		over(t, &conns, ours)
		if got, err := io.ReadAll(theirs); len(got) > 0 || err != nil {
			t.Errorf("answered %v: the upstream got %q, %v; want an ordinary end", answered, got, err)
		}
	}
}

// An upstream that does not end the connection is hung up on.
func TestHungUpInTime(t *testing.T) {
	t.Parallel()
	var conns linger.Conns
	ours, theirs := connect(t)
	conns.Add(ours, true)
	theirs.Read(make([]byte, 1)) // until there is an end
	over(t, &conns, ours)
}

// One that sends without end is, too.
func TestDropsOnlySoMuch(t *testing.T) {
	t.Parallel()
	var conns linger.Conns
	ours, theirs := connect(t)
	conns.Add(ours, false)
	sent, err := io.Copy(theirs, endless{})
	if err == nil || sent < 64<<10 {
		t.Errorf("sent %d bytes, %v; want an error", sent, err)
	}
	over(t, &conns, ours)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestNoSocket(t *testing.T) {
	var conns linger.Conns
	ours, theirs := net.Pipe()
	conns.Add(ours, true)
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF || conns.Len() > 0 {
		t.Errorf("got %v, %d linger; want it closed at once", err, conns.Len())
	}
}
