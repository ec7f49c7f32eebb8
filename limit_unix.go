//go:build unix

package slipswitch

import (
	"math"
	"net"
	"os"
	"syscall"
)

// maxDescriptors returns how many descriptors the process may open; ok is false
// if nobody knows.
func maxDescriptors() (n int, ok bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return 0, false
	}
	return int(limit.Cur), true
}

// crowded reports whether a connection's descriptor is one of the last that
// there may be, which are kept free.
func crowded(conn net.Conn, spare int) (crowded bool) {
	all, ok := maxDescriptors()
	if !ok {
		return false
	}
	has, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := has.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) { crowded = int(fd) >= all-spareOf(spare, all) })
	return crowded
}

// full reports whether the next descriptor would be one of those.
func full(spare int) bool {
	all, ok := maxDescriptors()
	if !ok {
		return false
	}
	fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err == syscall.EMFILE || err == syscall.ENFILE
	}
	syscall.Close(fd)
	return fd >= all-spareOf(spare, all)
}
