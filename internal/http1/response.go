package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// A Response is what an upstream has answered, and its own body: Read yields the
// body, or WriteTo writes it.
//
// One goroutine at a time may use a Response; Abort may be called at any time.
// The connection is free for the next request as soon as the body's end has been
// read and the request has been sent, or else closed by Close.
type Response struct {
	Status        int
	Minor         int         // of HTTP/1.Minor: 0 or 1
	Header        http.Header // all of it, hop-by-hop fields too
	ContentLength int64       // as announced, to HEAD too; -1: not announced

	// Trailer has the announced names from the beginning, and all fields that the
	// upstream has sent after the body's end.
	Trailer http.Header

	client   *Client
	conn     *connection
	request  *Request
	ctx      context.Context
	inMemory bool // the body is sent with the header

	// What the reading goroutine knows.
	chunked   bool
	toClose   bool // the body ends with the connection
	next      next
	remaining int64 // of the body, or of a chunk
	excess    int64 // of chunk headers over data
	header    int   // bytes of headers read
	line      int   // where in the buffer the last line of a header begins
	scanned   int   // how far it has been looked through
	got       bool  // a byte of a response
	wrote     int   // bytes of the request's header
	slots     [12]string
	over      error // what Read returns from now on

	mu       sync.Mutex
	held     bool  // the connection is ours
	received bool  // the whole response
	sending  bool  // another goroutine sends the body, or has sent it
	last     bool  // which has its last write before it
	sent     bool  // the whole request
	closed   bool  // by Close
	failed   bool  // by Abort, or a timeout: not the connection's fault
	keep     bool  // the connection may be used again
	cause    error // of failed
	sendErr  error // why the request was not sent
	stage    stage
	due      time.Time // when the stage must be over; zero means never
	slice    time.Time // when the context is to be watched from; zero: it is
	unwatch  func() bool
}

// A stage says what a read waits for.
type stage uint8

const (
	awaitContinue stage = iota // a 100, or leave to send the body
	awaitHeader
	awaitBody
)

// The context is looked after by context.AfterFunc only if a read has not
// returned for this long: most requests are over before.
const unwatched = 100 * time.Millisecond

// After a failure to send, the response may be there all the same, and is
// waited for so long.
const sendGrace = time.Second

// exchange writes the request's header, has the body sent, and reads up to the
// final response's header.
func (r *Response) exchange(out []byte) error {
	err := r.begin(out)
	if err == nil {
		err = r.readHeader()
	}
	if err != nil {
		return r.fail(err)
	}
	if r.next == nothing && r.Status != http.StatusSwitchingProtocols {
		r.over = io.EOF
		r.receivedAll()
	}
	return nil
}

func (r *Response) begin(out []byte) error {
	q, c := r.request, r.conn
	c.upgrade, c.answered = q.Upgrade != "", false
	bySender := q.ContentLength != 0 && !r.inMemory
	waits := bySender || len(out) > maxWaitless
	if r.ctx.Done() != nil && !waits {
		r.slice = time.Now().Add(unwatched)
	} else {
		r.mu.Lock()
		r.watch()
		r.mu.Unlock()
	}
	var stall time.Duration
	if waits {
		stall = q.StallTimeout
	}
	c.setWriteDeadline(stall)
	n, err := c.Write(out)
	r.wrote = n
	if err != nil {
		return r.notSent(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !bySender:
		r.sentAll()
	case q.expectsContinue():
		r.due = time.Now().Add(q.continueTimeout())
		r.arm()
	default:
		r.startSending()
		r.arm()
	}
	return nil
}

// notSent notes that the header could not be written. The upstream may have
// answered before it has closed the connection.
func (r *Response) notSent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrStallTimeout
	}
	if r.wrote == 0 && r.conn.uses > 0 {
		return &writeError{err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stage = awaitHeader
	r.sendFailed(err)
	return nil
}

// sendFailed has the reader wait for a moment only. The lock is held.
func (r *Response) sendFailed(err error) {
	r.sendErr = &writeError{err}
	if r.stage < awaitBody {
		r.due = time.Now().Add(sendGrace)
		r.arm()
	}
}

// sentAll begins the wait for the header. The lock is held.
func (r *Response) sentAll() {
	r.sent = true
	if r.stage < awaitBody {
		r.stage, r.due = awaitHeader, time.Time{}
		if timeout := r.request.HeaderTimeout; timeout > 0 {
			r.due = time.Now().Add(timeout)
		}
		r.arm()
	}
	r.settle()
}

// arm sets the deadline for reads. The lock is held.
func (r *Response) arm() {
	if !r.held {
		return
	}
	deadline := r.due
	if deadline.IsZero() || !r.slice.IsZero() && r.slice.Before(deadline) {
		deadline = r.slice
	}
	r.conn.setReadDeadline(deadline)
}

// watch has the end of the context abort the request. The lock is held.
func (r *Response) watch() {
	r.slice = time.Time{}
	if r.ctx.Done() == nil {
		return
	}
	r.unwatch = context.AfterFunc(r.ctx, func() { r.Abort(context.Cause(r.ctx)) })
}

// lift removes the deadline for reads.
func (r *Response) lift() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.slice.IsZero() {
		r.watch()
	}
	r.due = time.Time{}
	r.arm()
}

// receive waits for bytes, into p or, if that is nil, into the buffer.
func (r *Response) receive(p []byte) (int, error) {
	for {
		r.beforeRead()
		n, err := r.conn.receive(p)
		if again, err := r.afterRead(n, err); !again {
			return n, err
		}
	}
}

// await waits for bytes, and returns how many there are, up to most.
func (r *Response) await(most int) (int, error) {
	for {
		r.beforeRead()
		n, err := r.conn.await(most)
		if again, err := r.afterRead(n, err); !again {
			return n, err
		}
	}
}

// beforeRead bounds the wait for the next part of a body.
func (r *Response) beforeRead() {
	if timeout := r.request.StreamTimeout; timeout > 0 && r.next != nothing {
		r.mu.Lock()
		r.due = time.Now().Add(timeout)
		r.arm()
		r.mu.Unlock()
	}
}

// afterRead reports whether a read is to be tried again, and else its error.
func (r *Response) afterRead(n int, err error) (again bool, _ error) {
	switch {
	case n > 0:
		r.got = true
		return false, nil
	case err == nil:
		return true, nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return false, err
	}
	err = r.onDeadline()
	return err == nil, err
}

// onDeadline tells why a read has not returned, or has it go on.
func (r *Response) onDeadline() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil {
		return r.cause
	}
	now := time.Now()
	if !r.due.IsZero() && !now.Before(r.due) {
		switch {
		case r.stage == awaitContinue:
			r.startSending()
		case r.sendErr != nil && r.stage == awaitHeader:
			return r.sendErr
		case r.stage == awaitHeader:
			r.failed = true
			return ErrHeaderTimeout
		default:
			r.failed = true
			return ErrStreamTimeout
		}
	}
	if !r.slice.IsZero() && !now.Before(r.slice) {
		r.watch()
	}
	r.arm()
	return nil
}

// fail ends a request that cannot go on, and returns why.
func (r *Response) fail(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.cause != nil:
		err = r.cause
	case r.sendErr != nil && !r.got:
		err = r.sendErr
	case err == io.EOF && !r.got:
		err = errNoAnswer
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		err = errCut
	}
	r.end(r.client.abort)
	r.dropBuffer()
	return err
}

// end gives the connection away. The lock is held.
func (r *Response) end(to func(*connection)) {
	if !r.held {
		return
	}
	r.held = false
	if r.unwatch != nil {
		r.unwatch()
	}
	to(r.conn)
}

func (r *Response) dropBuffer() {
	c := r.conn
	c.r = c.w
	c.trim()
}

// receivedAll notes that nothing more is to be read.
func (r *Response) receivedAll() {
	if r.conn.buffered() > 0 { // bytes behind an answer
		r.keep = false
		r.dropBuffer()
	}
	r.conn.keepAlive = keepAlive(r.Header["Keep-Alive"])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received = true
	r.settle()
}

// settle gives away a connection that is done. The lock is held.
func (r *Response) settle() {
	switch {
	case !r.received:
		if r.closed {
			r.end(r.client.abort)
		}
	case r.sent && r.keep && r.sendErr == nil:
		r.end(r.client.release)
	case r.sent, r.sendErr != nil, r.closed && !r.last:
		if r.held && r.sending {
			r.conn.SetWriteDeadline(time.Unix(1, 0))
		}
		r.end(r.client.leave)
	}
}

// Abort ends the request at once: reads fail with the error from now on. Once
// the response has been read it does nothing.
func (r *Response) Abort(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held || r.received && r.sent {
		return
	}
	r.failWith(err)
}

// failWith is Abort with the lock held.
func (r *Response) failWith(err error) {
	r.failed, r.cause = true, err
	r.end(r.client.abort)
}

// Close ends the response. If its body has not been read to its end, or the
// request's body not been sent, the connection is closed. Close waits for
// nothing.
func (r *Response) Close() error {
	if r.over == nil {
		r.over = ErrClosed
		r.dropBuffer()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.settle()
	return nil
}

// Hijack hands over the connection after a 101, and what the upstream has sent
// with it already. It has no deadlines, and is the caller's to close.
func (r *Response) Hijack() (net.Conn, []byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.Status != http.StatusSwitchingProtocols:
		return nil, nil, errors.New("http1: Hijack of a response that has not switched protocols")
	case r.cause != nil:
		return nil, nil, r.cause
	case !r.held:
		return nil, nil, ErrClosed
	}
	c := r.conn
	first := append([]byte(nil), c.buf[c.r:c.w]...)
	r.over = ErrClosed
	r.dropBuffer()
	r.end(r.client.forget)
	c.SetDeadline(time.Time{})
	return c.Conn, first, nil
}

// Sent reports whether the whole request has been sent.
func (r *Response) Sent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent
}
