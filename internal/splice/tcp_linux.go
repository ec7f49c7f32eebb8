package splice

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// sendQueueEmpty reports whether the peer has acknowledged all that was sent, or never will.
func sendQueueEmpty(conn *net.TCPConn) (empty, handled bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, false
	}
	err = raw.Control(func(fd uintptr) { empty = queueEmpty(int(fd)) })
	return empty, err == nil
}

// wasReset reports whether a connection at whose end a read came was reset rather than shut down: a reset shows as an
// error once, and that may have been a write's. It must not have been shut down for writing.
func wasReset(conn *net.TCPConn) (reset bool) {
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { reset = dead(int(fd)) })
	}
	return reset
}

// queueEmpty is sendQueueEmpty for a descriptor. A connection that was reset keeps the length its queue had.
func queueEmpty(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return err != nil || n == 0 || dead(fd)
}

// stillArriving reports whether something that was sent has not been acknowledged yet, by a peer that is there:
// it is slow, or does not read.
func stillArriving(conn *net.TCPConn) (yes bool) {
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { yes = arriving(int(fd)) })
	}
	return yes
}

// arriving is stillArriving for a descriptor. That a segment, or a probe for room, must be sent again is nothing unusual; three
// times without an answer are.
func arriving(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && !queueEmpty(fd) && info.Retransmits < 3 && info.Probes < 3
}

// ackBy returns how far the peer of a connection has come.
func ackBy(conn *net.TCPConn) (k ack) {
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { k = ackOf(int(fd)) })
	}
	return k
}

// ackOf is ackBy for a descriptor.
func ackOf(fd int) ack {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return ack{}
	}
	ago := func(ms uint32) int64 { return int64(ms) * int64(time.Millisecond) }
	return ack{!queueEmpty(fd), ago(info.Last_ack_recv), ago(info.Last_data_sent), max(info.Retransmits, info.Probes)}
}

func dead(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_CLOSE
}
