package http1

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/linger"
)

// A pool keeps connections between requests, the one that was used last on top.
// One timer looks at all of them from time to time: idle ones that have been
// kept long enough or that the upstream has closed go.
//
// Nothing is kept of a key that has no connection.
type pool struct {
	mu        sync.Mutex
	upstreams map[Key]*upstream
	idle      int
	oldest    *connection // of the idle ones, in the order in which they became so
	newest    *connection
	lingering linger.Conns
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

const idleTick = 5 * time.Second

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

// abort closes a connection on which something is under way. One that was asked for
// an upgrade lingers: its upstream may have nobody any more who listens for errors.
func (c *Client) abort(conn *connection) {
	if conn.upgrade {
		conn.SetDeadline(time.Unix(1, 0))
		c.leave(conn)
		return
	}
	c.forget(conn)
	conn.reset()
}

// leave closes a connection as soon as the upstream has.
func (c *Client) leave(conn *connection) {
	c.forget(conn)
	c.pool.lingering.Add(conn.Conn, conn.answered)
}
