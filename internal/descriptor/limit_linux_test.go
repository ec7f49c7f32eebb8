package descriptor_test

import (
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/slipswitch/slipswitch/internal/descriptor"
)

// limit has the process have no more than n descriptors until the test ends.
func limit(t *testing.T, n int) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(n), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
	if got, ok := descriptor.Limit(); got != n || !ok {
		t.Fatalf("Limit: got %d, %v; want %d", got, ok, n)
	}
}

func TestReserved(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	conn := socket.(*net.UDPConn)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	raw.Control(func(fd uintptr) { number = int(fd) })
	limit(t, number+10) // nine more, if those below are taken
	for spare, want := range map[int]bool{9: false, 10: true, 1 << 30: true} {
		if got := descriptor.Reserved(conn, spare); got != want {
			t.Errorf("Reserved of descriptor %d, %d spare: got %v; want %v", number, spare, got, want)
		}
	}
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	if descriptor.Reserved(pipe, 1<<30) {
		t.Error("a connection without a descriptor has a reserved one")
	}
}

func TestNextReserved(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	number := int(null.Fd())
	null.Close()
	limit(t, number+10)
	for spare, want := range map[int]bool{9: false, 10: true} {
		if got := descriptor.NextReserved(spare); got != want {
			t.Errorf("the next descriptor is %d, %d spare: got %v; want %v", number, spare, got, want)
		}
	}
	limit(t, number) // none is left
	if !descriptor.NextReserved(1) {
		t.Error("the next descriptor is not reserved, though there is none")
	}
}
