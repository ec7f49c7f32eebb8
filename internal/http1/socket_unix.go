//go:build unix && !linux

package http1

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	canPeek   = true
	canSplice = false
)

func countReadable(uintptr, int) (int, bool, error) { panic("http1: nothing is spliced here") }

// tryRead reads what is there; again says that nothing is.
func tryRead(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, true, nil
		case err != nil:
			return 0, false, os.NewSyscallError("read", err)
		case n == 0:
			return 0, false, io.EOF
		default:
			return n, false, nil
		}
	}
}

func peek(fd uintptr) (state, error) {
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return quiet, nil
		case err != nil:
			return ended, os.NewSyscallError("recvfrom", err)
		case n == 0:
			return ended, nil
		default:
			return pending, nil
		}
	}
}
