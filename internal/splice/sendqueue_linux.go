package splice

import (
	"net"

	"golang.org/x/sys/unix"
)

// sendQueueEmpty reports whether the peer has acknowledged all that was sent.
func sendQueueEmpty(conn *net.TCPConn) (empty, handled bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, false
	}
	err = raw.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		empty, handled = n == 0, err == nil
	})
	return empty, handled && err == nil
}
