// Package descriptor knows how many file descriptors the process may open, and
// whether it is near that limit. It counts nothing: a new descriptor gets the
// lowest free number, so its number shows how many are open, no matter which code
// has opened them.
//
// Some of the last descriptors are reserved for work that must go on near the
// limit.
package descriptor

import (
	"net"
	"syscall"
)

// Reserve returns how many descriptors are reserved of a limit. Zero means a 32nd of
// the limit, or 64 if that is more, but never more than a quarter of it.
func Reserve(spare, limit int) int {
	if spare > 0 {
		return spare
	}
	return min(max(64, limit/32), limit/4)
}

// Reserved reports whether a connection has got one of the reserved descriptors,
// spare being what Reserve takes. It returns false without a limit, and for a
// connection whose descriptor cannot be asked for.
func Reserved(conn net.Conn, spare int) (reserved bool) {
	limit, ok := Limit()
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
	raw.Control(func(fd uintptr) { reserved = int(fd) >= limit-Reserve(spare, limit) })
	return reserved
}

// NextReserved reports whether the next descriptor would be a reserved one. To find
// out it opens one, and closes it.
func NextReserved(spare int) bool {
	limit, ok := Limit()
	if !ok {
		return false
	}
	fd, ok := next()
	return !ok || fd >= limit-Reserve(spare, limit)
}
