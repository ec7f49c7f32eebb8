// Package http1 is an HTTP/1.1 client made for forwarding. It knows connections,
// requests and responses, never routes.
//
// The caller's goroutine writes the request and reads the response. A second
// goroutine runs only while a body that is not in memory is being sent. A
// connection that is idle, or waits for a response, has no goroutine and no
// buffer.
//
// Requests and responses are not changed, except for their framing: no User-Agent
// or Accept-Encoding is added, no redirect is followed, no cookie is kept.
// Responses are read as strictly as by net/http, or more so; the tests list each
// difference.
package http1

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// A Key is what requests must have in common to share connections.
type Key struct {
	Scheme  string
	Address string // as Dial takes it
	Profile string // of TLS
	ID      string // who is at the address, where addresses are used again for others
	Guarded bool   // dialed only if the address may be connected to
}

// A Client sends requests and keeps connections for the next ones. Its methods
// may be called at the same time. Its fields must not be changed after the first
// call; only Dial must be set.
type Client struct {
	// Dial connects to an upstream. A connection for TLS has done its handshake,
	// and has a method NetConn as *tls.Conn has; what that returns may have one, too.
	// RoundTrip returns Dial's error as it is.
	Dial func(ctx context.Context, key Key) (net.Conn, error)

	// MaxIdle is how many idle connections are kept, and MaxIdlePerKey how many
	// of them for one key; the one that was used longest ago goes first. Zero
	// means 4096 and 64.
	MaxIdle, MaxIdlePerKey int

	// IdleTimeout is how long a connection is kept without a request. An upstream
	// that announces a shorter time (Keep-Alive: timeout=5) has a second less
	// than that. Zero means 90 s.
	IdleTimeout time.Duration

	pool pool
}

// A Request is what is asked of an upstream. It must not be changed before the
// response is closed.
type Request struct {
	Method     string
	Path       string // as it is to be sent, with its escapes
	RawQuery   string // without the ?
	ForceQuery bool   // sends a ? even if RawQuery is empty
	Host       string

	// Header has canonical names, and no field that is hop-by-hop. Fields that
	// frame a message (Host, Connection, Upgrade, Content-Length,
	// Transfer-Encoding, Trailer) are left out: the fields of Request tell them.
	Header http.Header

	// Upgrade is the protocol to switch to. Empty means none, and a 101 is then an
	// error.
	Upgrade string

	// Body is read by another goroutine while the response is, unless it is in
	// memory already: if it has a method Len, as bytes.Reader has, and is short.
	// With "Expect: 100-continue" it is not read before the upstream says so, or
	// has said nothing for ContinueTimeout. After Close of the response at most
	// one call of Read is still under way, and it is the last.
	Body io.Reader

	// ContentLength is how many bytes are read from Body. Zero means no body, -1
	// means chunked up to io.EOF.
	ContentLength int64

	// Trailer has the names that are announced; its values are read when a chunked
	// Body has ended.
	Trailer http.Header

	// MaxHeader bounds the headers and trailers of all responses to the request
	// together, in bytes. Zero means 1 MiB.
	MaxHeader int

	// Interim is called with each 1xx response but 100 and 101. Its error ends the
	// request. Nil: they are dropped.
	Interim func(status int, header http.Header) error

	HeaderTimeout   time.Duration // from the request's end to the response's header; zero means none
	StreamTimeout   time.Duration // between two parts of the response's body; zero means none
	StallTimeout    time.Duration // for the upstream to take a part of the request; zero means none
	ContinueTimeout time.Duration // zero means 1 s
}

// RoundTrip sends a request and returns its final response as soon as its header
// is there. The response must be closed. The context ends the request until
// then, and the response's body, too, up to a tenth of a second late.
//
// An idle connection may turn out to be closed when it is used. If it fails
// before the first byte of a response, the request is sent once more, over a
// new connection, provided that its method is idempotent (RFC 9110 §9.2.2), or
// it has an Idempotency-Key, and its body untouched, or that the upstream cannot have got all of it. No other
// request is ever sent twice.
func (c *Client) RoundTrip(ctx context.Context, key Key, q *Request) (*Response, error) {
	out := borrowHead()
	defer out.giveBack()
	inMemory, err := out.render(q)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		var conn *connection
		if first {
			conn = c.take(key)
		}
		reused := conn != nil
		if !reused {
			dialed, err := c.Dial(ctx, key)
			if err != nil {
				return nil, err
			}
			conn = c.adopt(key, dialed)
		}
		r := &Response{client: c, conn: conn, request: q, ctx: ctx, held: true, inMemory: inMemory}
		if err = r.exchange(out.b); err == nil {
			return r, nil
		}
		if !reused || !r.mayRepeat() {
			return nil, err
		}
	}
}

// mayRepeat reports whether a request that failed on a used connection may be
// sent again.
func (r *Response) mayRepeat() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got || r.failed || r.sending { // or the body has been touched
		return false
	}
	return r.request.isIdempotent() || r.wrote == 0 || r.request.ContentLength != 0 && !r.inMemory
}

func (q *Request) isIdempotent() bool {
	switch q.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return q.Header["Idempotency-Key"] != nil || q.Header["X-Idempotency-Key"] != nil
}

func (c *Client) maxIdle() int {
	if c.MaxIdle > 0 {
		return c.MaxIdle
	}
	return 4096
}

func (c *Client) maxIdlePerKey() int {
	if c.MaxIdlePerKey > 0 {
		return c.MaxIdlePerKey
	}
	return 64
}

func (c *Client) idleTimeout() time.Duration {
	if c.IdleTimeout > 0 {
		return c.IdleTimeout
	}
	return 90 * time.Second
}

func (q *Request) maxHeader() int {
	if q.MaxHeader > 0 {
		return q.MaxHeader
	}
	return 1 << 20
}

func (q *Request) continueTimeout() time.Duration {
	if q.ContinueTimeout > 0 {
		return q.ContinueTimeout
	}
	return time.Second
}
