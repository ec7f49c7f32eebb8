package http1

import (
	"net/http"
	"time"
)

// SendError is why the request was not sent.
func SendError(r *Response) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sendErr
}

// Keys returns how many keys the pool knows.
func Keys(c *Client) int {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return len(c.pool.upstreams)
}

// Sweep has the timer's work done now.
func Sweep(c *Client) {
	c.pool.mu.Lock()
	c.pool.look = time.Time{}
	c.pool.mu.Unlock()
	c.sweep()
}

// ParseFields is for benchmarks.
func ParseFields(block []byte) (http.Header, error) { return parseFields(block, nil) }

// Quiet reports whether all idle connections are open, with nothing to read.
func Quiet(c *Client) bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	for conn := c.pool.oldest; conn != nil; conn = conn.next {
		if conn.look() != quiet {
			return false
		}
	}
	return true
}
