package linger

import "golang.org/x/sys/unix"

// finAndReset ends a TCP connection with a FIN and a RST. Should the peer's own
// FIN come between the two, the port would be blocked after all, and a peer that
// runs on this machine is quick: so a filter drops all that comes.
func finAndReset(fd uintptr) {
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	unix.Shutdown(int(fd), unix.SHUT_WR)
}
