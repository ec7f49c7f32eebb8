package splice_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// wait is how long a test waits for a state that must come.
const wait = 15 * time.Second

// pumps are the ways a tunnel can be carried. Each named test runs on all of them. Where tunnels are frozen, that is done again
// and again, and nobody is to notice.
var pumps = []string{"sockets", "portable", "frozen"}

// onPumps runs a test on every pump.
func onPumps(t *testing.T, test func(t *testing.T, e *splice.Engine)) {
	for _, pump := range pumps {
		t.Run(pump, func(t *testing.T) {
			t.Parallel()
			test(t, &splice.Engine{Portable: pump == "portable"})
		})
	}
}

// tunnel is a pair with its two peers.
type tunnel struct {
	t                testing.TB
	client, upstream *net.TCPConn
	pair             *splice.Pair
	ended            chan splice.End
}

// open starts a tunnel over four sockets. The config's connections are filled in.
func open(t testing.TB, e *splice.Engine, c splice.Config) *tunnel {
	t.Helper()
	client, clientSide := connect(t)
	upstream, upstreamSide := connect(t)
	c.Client, c.Upstream = clientSide, upstreamSide
	return start(t, e, c, client, upstream)
}

func start(t testing.TB, e *splice.Engine, c splice.Config, client, upstream *net.TCPConn) *tunnel {
	t.Helper()
	tun := &tunnel{t: t, client: client, upstream: upstream, ended: make(chan splice.End, 1)}
	c.Ended = tun.finish
	tun.pair = e.Start(c)
	if strings.HasSuffix(t.Name(), "/frozen") {
		go func() {
			for {
				frozen, err := tun.pair.Freeze()
				if err != nil {
					return
				}
				time.Sleep(100 * time.Microsecond)
				frozen.Thaw()
				time.Sleep(time.Millisecond)
			}
		}()
	}
	t.Cleanup(func() {
		tun.client.Close()
		tun.upstream.Close()
		tun.pair.Close("test over", 0, "")
		select {
		case <-tun.ended:
		case <-time.After(wait):
			t.Errorf("tunnel did not end")
		}
	})
	return tun
}

func (tun *tunnel) finish(end splice.End) {
	select {
	case tun.ended <- end:
	default:
		tun.t.Errorf("a second end: %+v", end)
	}
}

// end waits for the tunnel's end.
func (tun *tunnel) end() splice.End {
	tun.t.Helper()
	select {
	case end := <-tun.ended:
		tun.ended <- end // for the cleanup
		return end
	case <-time.After(wait):
		tun.t.Fatalf("tunnel did not end; %+v", tun.pair.Stats())
	}
	panic("unreachable")
}

var listener = sync.OnceValue(func() *net.TCPListener {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err)
	}
	return l
})

var connecting sync.Mutex

// connect returns both ends of a TCP connection.
func connect(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	connecting.Lock()
	defer connecting.Unlock()
	near, err := net.DialTCP("tcp", nil, listener().Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	far, err = listener().AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

func write(t testing.TB, c io.Writer, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// expect reads exactly want.
func expect(t testing.TB, c net.Conn, want []byte) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(wait))
	defer c.SetReadDeadline(time.Time{})
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if err != nil {
		t.Fatalf("read %d of %d bytes: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes that differ at %d", len(got), differ(got, want))
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// expectEOF reads until the end and wants nothing to come before it.
func expectEOF(t testing.TB, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(wait))
	defer c.SetReadDeadline(time.Time{})
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Fatalf("got %d bytes, %v; want EOF", len(b), err)
	}
}

// expectReset reads until a reset and returns what came before it.
func expectReset(t testing.TB, c net.Conn) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(wait))
	b, err := io.ReadAll(c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %d bytes, %v; want a reset", len(b), err)
	}
	return b
}

// reset makes a peer go with a RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// until waits for a state by looking often.
func until(t testing.TB, what string, state func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !state(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// noise returns n reproducible bytes.
func noise(n int) []byte {
	b := make([]byte, n+8)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n]
}

// frame builds a WebSocket frame; a client's is masked.
func frame(from splice.Side, opcode byte, final bool, payload []byte) []byte {
	b := []byte{opcode}
	if final {
		b[0] |= 0x80
	}
	var mask byte
	if from == splice.Client {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if mask == 0 {
		return append(b, payload...)
	}
	key := [4]byte{1, 2, 3, 4}
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i&3])
	}
	return b
}

func message(from splice.Side, payload []byte) []byte { return frame(from, 2, true, payload) }

// secure puts TLS over both ends of a connection.
func secure(t testing.TB, near, far net.Conn) (*tls.Conn, *tls.Conn) {
	t.Helper()
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client, server
}
