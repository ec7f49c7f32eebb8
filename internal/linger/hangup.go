package linger

import (
	"crypto/tls"
	"net"
)

// Socket returns the connection under a TLS connection, or conn itself if it is no
// TLS connection.
func Socket(conn net.Conn) net.Conn {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return secure.NetConn()
	}
	return conn
}

// HangUp closes a connection without blocking its port: by a FIN, and by a RST
// right after it. A peer that only reads sees an ordinary end. A peer that goes on
// to write gets the reset.
func HangUp(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		secure.CloseWrite()
	}
	socket := Socket(conn)
	if tcp, ok := socket.(*net.TCPConn); ok {
		tcp.SetLinger(0)
		if raw, err := tcp.SyscallConn(); err == nil {
			raw.Control(finAndReset)
		}
	}
	socket.Close()
}
