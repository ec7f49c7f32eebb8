package http1

import (
	"io"
	"os"
	"syscall"
	"unsafe"
)

const (
	canPeek   = true
	canSplice = true
)

// The calls are raw, and do not wait: the scheduler need not hear of them.

// tryRead reads what is there; again says that nothing is.
func tryRead(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		got, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case 0:
			if got == 0 {
				return 0, false, io.EOF
			}
			return int(got), false, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, os.NewSyscallError("read", errno)
		}
	}
}

// countReadable tells how many bytes could be read, up to most: TCP copies
// nothing with MSG_TRUNC, and keeps all with MSG_PEEK (tcp(7)).
func countReadable(fd uintptr, most int) (n int, again bool, err error) {
	for {
		got, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, 0, uintptr(most),
			syscall.MSG_PEEK|syscall.MSG_TRUNC|syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			if got == 0 {
				return 0, false, io.EOF
			}
			return int(got), false, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, os.NewSyscallError("recvfrom", errno)
		}
	}
}

func peek(fd uintptr) (state, error) {
	var b [1]byte
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return quiet, nil
		case errno != 0:
			return ended, os.NewSyscallError("recvfrom", errno)
		case n == 0:
			return ended, nil
		default:
			return pending, nil
		}
	}
}
