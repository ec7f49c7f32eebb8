//go:build unix

package linger

import "syscall"

// readNow reads from a socket that does not block. Pending means that nothing has
// come yet, over that nothing more comes.
func readNow(fd uintptr, p []byte) (n int, pending, over bool) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, true, false
		case err != nil || n <= 0:
			return 0, false, true
		default:
			return n, false, false
		}
	}
}
