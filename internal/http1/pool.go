package http1

import (
	"net"
	"slices"
	"sync"
	"time"
)

// A pool keeps connections between requests, the one that was used last on top.
// One timer looks at all of them from time to time: idle ones that have been
// kept long enough or that the upstream has closed go, and so do those that
// wait for the upstream's FIN.
//
// Nothing is kept of a key that has no connection.
type pool struct {
	mu        sync.Mutex
	upstreams map[Key]*upstream
	idle      int
	oldest    *connection // of the idle ones, in the order in which they became so
	newest    *connection
	leaving   []*connection
	timer     *time.Timer
	tick      time.Time // when it is to fire next; zero: it stands
	look      time.Time // when to look at the idle ones next
	closed    bool
}

// An upstream is the connections for one key.
type upstream struct {
	key     Key
	idle    []*connection
	open    int // with those in use
	dropped bool
}

// pooled is what the pool knows of a connection, under its lock.
type pooled struct {
	upstream    *upstream
	isIdle      bool
	uses        int // how often it was taken
	until       time.Time
	keepAlive   time.Duration // what the upstream has announced last; zero: nothing
	older, next *connection   // in the order of becoming idle
}

const (
	idleTick    = 5 * time.Second
	leavingTick = 25 * time.Millisecond

	// An upstream that is to close a connection has lingerTimeout for it. Whoever
	// closes first has the port taken for a minute: better its than ours.
	lingerTimeout = time.Second
	maxLeaving    = 1 << 10
)

// take returns an idle connection, or nil. No connection is returned that the
// upstream has closed, or written to unasked.
func (c *Client) take(key Key) *connection {
	p := &c.pool
	for {
		p.mu.Lock()
		var conn *connection
		if u := p.upstreams[key]; u != nil && len(u.idle) > 0 {
			conn = u.idle[len(u.idle)-1]
			p.unlist(conn)
			conn.uses++
		}
		p.mu.Unlock()
		if conn == nil || conn.isQuiet() {
			return conn
		}
		c.discard(conn)
	}
}

// adopt has the pool know a new connection, which is in use.
func (c *Client) adopt(key Key, nc net.Conn) *connection {
	conn := newConn(nc)
	p := &c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.upstreams[key]
	if u == nil {
		if p.upstreams == nil {
			p.upstreams = make(map[Key]*upstream)
		}
		u = &upstream{key: key}
		p.upstreams[key] = u
	}
	u.open++
	conn.upstream = u
	return conn
}

// release makes a connection idle whose response has been read.
func (c *Client) release(conn *connection) {
	if conn.secure && !conn.isSilent(time.Unix(1, 0)) {
		c.discard(conn)
		return
	}
	timeout := c.idleTimeout()
	if conn.keepAlive > 0 {
		timeout = min(timeout, conn.keepAlive-time.Second)
	}
	p := &c.pool
	now := time.Now()
	p.mu.Lock()
	u := conn.upstream
	if p.closed || u.dropped || timeout <= 0 {
		p.mu.Unlock()
		c.leave(conn)
		return
	}
	var evicted *connection
	switch {
	case len(u.idle) >= c.maxIdlePerKey():
		evicted = u.idle[0]
	case p.idle >= c.maxIdle():
		evicted = p.oldest
	}
	if evicted != nil {
		p.unlist(evicted)
	}
	conn.until = now.Add(timeout)
	if p.list(conn); p.idle == 1 {
		p.look = now.Add(min(idleTick, timeout))
	}
	c.wake(p.look)
	p.mu.Unlock()
	if evicted != nil {
		c.discard(evicted)
	}
}

// list and unlist put a connection among the idle ones, and take it from there.
// The lock is held.
func (p *pool) list(c *connection) {
	c.isIdle = true
	c.upstream.idle = append(c.upstream.idle, c)
	p.idle++
	c.older = p.newest
	if c.older != nil {
		c.older.next = c
	} else {
		p.oldest = c
	}
	p.newest = c
}

func (p *pool) unlist(c *connection) {
	c.isIdle = false
	u := c.upstream
	i := len(u.idle) - 1
	for u.idle[i] != c {
		i--
	}
	u.idle = slices.Delete(u.idle, i, i+1)
	p.idle--
	if c.older != nil {
		c.older.next = c.next
	} else {
		p.oldest = c.next
	}
	if c.next != nil {
		c.next.older = c.older
	} else {
		p.newest = c.older
	}
	c.older, c.next = nil, nil
}

// forget ends what the pool knows of a connection that is in use.
func (c *Client) forget(conn *connection) {
	p := &c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	u := conn.upstream
	if u.open--; u.open == 0 && !u.dropped {
		delete(p.upstreams, u.key)
	}
}

// discard closes a connection on which nothing is under way.
func (c *Client) discard(conn *connection) {
	c.forget(conn)
	conn.Close()
}

// abort closes a connection on which something is under way. It is reset, but
// not one that was asked for an upgrade: its upstream may have nobody any more
// who listens for errors.
func (c *Client) abort(conn *connection) {
	half, ok := conn.Conn.(interface{ CloseWrite() error })
	if !conn.upgrade || !ok || conn.socket == nil {
		c.forget(conn)
		conn.reset()
		return
	}
	conn.SetDeadline(time.Unix(1, 0))
	half.CloseWrite()
	c.leave(conn)
}

// leave closes a connection as soon as the upstream has, or resets it.
func (c *Client) leave(conn *connection) {
	c.forget(conn)
	if conn.socket == nil || conn.hasLeft() {
		conn.Close()
		return
	}
	p := &c.pool
	p.mu.Lock()
	var pushed *connection
	if len(p.leaving) >= maxLeaving {
		pushed = p.leaving[0]
		p.leaving = slices.Delete(p.leaving, 0, 1)
	}
	now := time.Now()
	conn.until = now.Add(lingerTimeout)
	p.leaving = append(p.leaving, conn)
	c.wake(now.Add(leavingTick))
	p.mu.Unlock()
	if pushed != nil {
		pushed.reset()
	}
}

// hasLeft reports whether the upstream's FIN has come, behind bytes that nobody
// reads any more.
func (c *connection) hasLeft() (left bool) {
	err := c.socket.Control(func(fd uintptr) {
		var b [1 << 10]byte
		for range 64 {
			_, again, err := tryRead(fd, b[:])
			if left = err != nil; left || again {
				return
			}
		}
		left = true // it sends and sends: a close is a reset
	})
	return left || err != nil
}
