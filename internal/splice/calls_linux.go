package splice

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the inner loop, with the errno as it is, and repeated when a signal came between. A count is never negative.
//
// None waits for a peer. Those that move a buffer at most are so short that the scheduler need not hear of them: to tell it,
// and to have it look after the processor meanwhile, takes a tenth of the time of a small message. A splice may move a megabyte.

// epollWait looks for events and does not wait.
func epollWait(epoll int, events []unix.EpollEvent) int {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll),
			uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EINTR:
		default:
			panic("splice: epoll_pwait: " + errno.Error()) // the loop has lost its descriptor
		}
	}
}

// read is recv: a loop waits for no socket, be it one that somebody has made blocking.
func read(fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// write is send without SIGPIPE.
func write(fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// splice never says that more will follow: SPLICE_F_MORE holds the last bytes back for 200 ms.
func splice(from, to, n int) (int, syscall.Errno) {
	for {
		moved, _, errno := syscall.Syscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
			unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errno == 0 {
			return int(moved), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
