package linger

import (
	"crypto/tls"
	"net"
)

// Socket returns the connection under a TLS connection and others with a method
// NetConn, or conn itself if it has none.
func Socket(conn net.Conn) net.Conn {
	for {
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = wrapper.NetConn()
	}
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
