package slipswitch

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A connection on which an upgrade was refused is of no further use, and most
// upstreams end it by themselves. It lingers here until they do: the side that
// closes first is the one whose port is blocked for a minute (TIME_WAIT), and a
// server whose answer is met by a reset may take that for a failure of its own.
// What does not end in time is hung up on.
//
// All lingering connections are looked after by one goroutine, which lives
// while there are any.
type lingering struct {
	mu      sync.Mutex
	conns   []*lingerer // the oldest first
	running bool
}

const (
	lingerMost   = 256                   // connections; one more, and the oldest is hung up on
	lingerLook   = 10 * time.Millisecond // between two looks at them
	lingerBytes  = 256 << 10             // that are read, and dropped, of one connection
	answeredWait = time.Second           // for the end after a final response
	unwantedWait = 5 * time.Second       // for an answer that nobody waits for any more, and the end
)

// A lingerer is one connection. Its bytes are no longer looked at, so of TLS only
// the socket below matters.
type lingerer struct {
	conn     net.Conn
	raw      syscall.RawConn
	answered bool
	until    time.Time
	left     int // bytes that may be read
}

// add takes over a connection. Of one that has answered the upstream wants
// nothing more; one that has not may still be written to.
func (l *lingering) add(conn net.Conn, answered bool) {
	c := &lingerer{conn: conn, answered: answered, until: time.Now().Add(unwantedWait), left: lingerBytes}
	if answered {
		c.until = time.Now().Add(answeredWait)
	}
	socket, ok := socketOf(conn).(syscall.Conn)
	if ok {
		var err error
		c.raw, err = socket.SyscallConn()
		ok = err == nil
	}
	if !ok {
		hangUp(conn) // somebody else's, and none that can be asked
		return
	}
	if c.ended() {
		socketOf(conn).Close()
		return
	}
	l.mu.Lock()
	l.conns = append(l.conns, c)
	var oldest *lingerer
	if len(l.conns) > lingerMost {
		oldest = l.conns[0]
		l.conns = slices.Delete(l.conns, 0, 1)
	}
	if !l.running {
		l.running = true
		go l.lookAfter()
	}
	l.mu.Unlock()
	if oldest != nil {
		hangUp(oldest.conn)
	}
}

// lookAfter closes the connections that have ended, and those whose time is over.
func (l *lingering) lookAfter() {
	ticker := time.NewTicker(lingerLook)
	defer ticker.Stop()
	for more := true; more; {
		<-ticker.C
		var over []*lingerer
		now := time.Now()
		l.mu.Lock()
		l.conns = slices.DeleteFunc(l.conns, func(c *lingerer) bool {
			if c.ended() {
				socketOf(c.conn).Close()
				return true
			}
			if now.After(c.until) || c.left <= 0 {
				over = append(over, c)
				return true
			}
			return false
		})
		more = len(l.conns) > 0
		l.running = more
		l.mu.Unlock()
		for _, c := range over {
			if c.answered {
				hangUp(c.conn)
			} else {
				c.conn.Close() // a late answer to that is no failure; they are few
			}
		}
	}
}

// close hangs up on all.
func (l *lingering) close() {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for _, c := range conns {
		hangUp(c.conn)
	}
}

// ended reads what there is, without waiting, and reports whether the upstream
// has ended the connection.
func (c *lingerer) ended() (over bool) {
	var drop [4 << 10]byte
	if c.raw.Control(func(fd uintptr) {
		for c.left > 0 {
			var n int
			var pending bool
			if n, pending, over = readNow(fd, drop[:]); pending || over {
				return
			}
			c.left -= n
		}
	}) != nil {
		return true
	}
	return over
}

// socketOf returns what a TLS connection stands on, or conn itself.
func socketOf(conn net.Conn) net.Conn {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return secure.NetConn()
	}
	return conn
}

// hangUp closes a connection without blocking its port: by a FIN, and by a RST
// right after it. Who only reads sees an ordinary end; the reset is for who goes
// on to write.
func hangUp(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		secure.CloseWrite()
	}
	socket := socketOf(conn)
	if tcp, ok := socket.(*net.TCPConn); ok {
		tcp.SetLinger(0)
		if raw, err := tcp.SyscallConn(); err == nil {
			raw.Control(finAndReset)
		}
	}
	socket.Close()
}
