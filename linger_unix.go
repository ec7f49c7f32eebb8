//go:build unix

package slipswitch

import "syscall"

// readNow reads from a socket that is not blocking. Pending: nothing is there
// yet. Over: nothing more comes.
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
