// Package linger closes connections that are no longer used without harm to
// either side: a connection on which an upgrade was refused, or whose client has
// left.
//
// The side that closes first has its port blocked for a minute (TIME_WAIT), so a
// gateway that refuses handshakes all day would run out of ports. And a server
// whose answer meets a reset may take that for a failure of its own. Most
// upstreams close the connection by themselves, so it lingers here until they do.
// A connection that is not closed in time is dropped by HangUp.
package linger

import (
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Conns are the connections that linger. The zero value has none. One goroutine
// looks after them all, and lives while there are any.
type Conns struct {
	mu      sync.Mutex
	conns   []*lingerer // the oldest first
	running bool
}

// Most is how many connections linger. For one more the oldest is hung up on.
const Most = 256

const (
	interval     = 10 * time.Millisecond // between two looks at the connections
	mostBytes    = 256 << 10             // that are read, and dropped, of one connection
	answeredWait = time.Second           // for the end after a final response
	unwantedWait = 5 * time.Second       // for an answer that nobody waits for any more, and the end
)

// A lingerer is one connection. Its bytes are dropped unread, so of a TLS connection
// only the socket matters.
type lingerer struct {
	conn     net.Conn
	raw      syscall.RawConn
	answered bool
	until    time.Time
	left     int // bytes that may be read
}

// Add takes over a connection to an upstream. Answered says that the upstream has
// sent its final response; otherwise it may still be about to. Add does not wait. A
// connection that the platform cannot read without waiting is closed at once.
func (l *Conns) Add(conn net.Conn, answered bool) {
	c := &lingerer{conn: conn, answered: answered, until: time.Now().Add(unwantedWait), left: mostBytes}
	if answered {
		c.until = time.Now().Add(answeredWait)
	}
	socket, ok := Socket(conn).(syscall.Conn)
	if ok {
		var err error
		c.raw, err = socket.SyscallConn()
		ok = err == nil
	}
	if !ok {
		HangUp(conn) // not a socket: it cannot be asked
		return
	}
	if c.ended() {
		Socket(conn).Close()
		return
	}
	l.mu.Lock()
	l.conns = append(l.conns, c)
	var oldest *lingerer
	if len(l.conns) > Most {
		oldest = l.conns[0]
		l.conns = slices.Delete(l.conns, 0, 1)
	}
	if !l.running {
		l.running = true
		go l.lookAfter()
	}
	l.mu.Unlock()
	if oldest != nil {
		HangUp(oldest.conn)
	}
}

// lookAfter closes the connections that have ended, and those whose time is over.
func (l *Conns) lookAfter() {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for more := true; more; {
		<-ticker.C
		var over []*lingerer
		now := time.Now()
		l.mu.Lock()
		l.conns = slices.DeleteFunc(l.conns, func(c *lingerer) bool {
			if c.ended() {
				Socket(c.conn).Close()
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
				HangUp(c.conn)
			} else {
				c.conn.Close() // a late answer to that is no failure; they are few
			}
		}
	}
}

// HangUp hangs up on all connections that linger. Others may be added after it.
func (l *Conns) HangUp() {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for _, c := range conns {
		HangUp(c.conn)
	}
}

// Len returns how many connections linger.
func (l *Conns) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
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
