package http1

import "time"

// wake has the timer fire at a time, if not before. The lock is held.
func (c *Client) wake(at time.Time) {
	p := &c.pool
	if !p.tick.IsZero() && !at.Before(p.tick) {
		return
	}
	p.tick = at
	if p.timer == nil {
		p.timer = time.AfterFunc(time.Until(at), c.sweep)
		return
	}
	p.timer.Reset(time.Until(at))
}

// sweep is what the timer does.
func (c *Client) sweep() {
	p := &c.pool
	now := time.Now()
	p.mu.Lock()
	p.tick = time.Time{}
	var idle []glance
	var expired []*connection
	if !now.Before(p.look) {
		idle, expired = p.survey(now)
		p.look = now.Add(min(idleTick, c.idleTimeout()))
	}
	p.mu.Unlock()

	for _, conn := range expired {
		c.discard(conn)
	}
	c.weed(idle)

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idle > 0 {
		c.wake(p.look)
	}
}

// A glance is at a connection while it is idle.
type glance struct {
	conn *connection
	uses int
}

// survey lists the idle connections, and takes out those that have been so for
// long enough. The lock is held.
func (p *pool) survey(now time.Time) (idle []glance, expired []*connection) {
	for conn := p.oldest; conn != nil; {
		next := conn.next
		switch {
		case !now.Before(conn.until):
			p.unlist(conn)
			expired = append(expired, conn)
		case conn.socket != nil:
			idle = append(idle, glance{conn, conn.uses})
		}
		conn = next
	}
	return idle, expired
}

// weed closes those that the upstream has closed, unless they have been in use
// since.
func (c *Client) weed(idle []glance) {
	var state state
	look := func(fd uintptr) { state, _ = peek(fd) }
	p := &c.pool
	for _, g := range idle {
		if g.conn.socket.Control(look) == nil && state == quiet {
			continue
		}
		p.mu.Lock()
		gone := g.conn.isIdle && g.conn.uses == g.uses
		if gone {
			p.unlist(g.conn)
		}
		p.mu.Unlock()
		if gone {
			c.discard(g.conn)
		}
	}
}

// Drop closes the idle connections of the keys that gone reports, and has those
// in use closed when their requests are done. gone must not call the Client.
func (c *Client) Drop(gone func(Key) bool) {
	c.clear(func(u *upstream) bool {
		u.dropped = gone(u.key)
		return u.dropped
	})
}

// CloseIdle closes all idle connections, and those that wait for their upstream to
// close them.
func (c *Client) CloseIdle() {
	c.pool.lingering.HangUp()
	c.clear(func(*upstream) bool { return true })
}

// Close closes all idle connections now, and those in use when their requests
// are done. Requests go on, and each new one has a connection of its own.
func (c *Client) Close() {
	p := &c.pool
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	c.CloseIdle()
}

// clear closes the idle connections of some upstreams.
func (c *Client) clear(which func(*upstream) bool) {
	p := &c.pool
	var gone []*connection
	p.mu.Lock()
	for key, u := range p.upstreams {
		if !which(u) {
			continue
		}
		for len(u.idle) > 0 {
			conn := u.idle[len(u.idle)-1]
			p.unlist(conn)
			gone = append(gone, conn)
		}
		if u.dropped {
			delete(p.upstreams, key)
		}
	}
	p.mu.Unlock()
	for _, conn := range gone {
		c.discard(conn)
	}
}

// Stats are how many connections there are.
type Stats struct {
	Open int // in use, or idle
	Idle int

	Lingering int // no longer open: they wait for their upstream to close them
}

// Stats returns the present count, without dropped connections that are still
// in use.
func (c *Client) Stats() Stats {
	p := &c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := Stats{Idle: p.idle, Lingering: p.lingering.Len()}
	for _, u := range p.upstreams {
		stats.Open += u.open
	}
	return stats
}
