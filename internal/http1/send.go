package http1

import (
	"errors"
	"io"
	"os"
	"strconv"
	"time"
)

// errStopped is why a body is sent no further: nobody wants it any more.
var errStopped = errors.New("stopped")

// startSending has another goroutine send the body. The lock is held.
func (r *Response) startSending() {
	r.stage, r.due = awaitHeader, time.Time{}
	r.sending = true
	go r.send()
}

// send sends the body. A failure before the response's header is the request's;
// after it, the upstream is merely sent no more, and may end its response.
func (r *Response) send() {
	err := r.sendBody()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch source, _ := errors.AsType[*BodyError](err); {
	case err == nil:
		r.sentAll()
		return
	case !r.held:
		return
	case r.stage == awaitBody:
		r.sendFailed(err)
		r.settle()
	case source != nil:
		r.failWith(source)
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.failWith(ErrStallTimeout)
	default:
		r.sendFailed(err)
	}
}

// maySend reports whether the body may be read once more; last, that it need
// not be.
func (r *Response) maySend(last bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = last
	return r.held && !r.closed
}

// patience is how many parts in a row have to leave room in a large buffer before the
// next ones get a small one.
const patience = 16

// Room in a buffer for what frames a chunk.
const (
	beforeChunk = len("8000\r\n")
	afterChunk  = len("\r\n0\r\n\r\n")
)

// sendBody sends each part as it comes. While the parts are small, so is the buffer
// that waits for them.
func (r *Response) sendBody() error {
	q := r.request
	isChunked := q.ContentLength < 0
	remaining := q.ContentLength
	few := 0 // parts in a row that have not filled the buffer
	buf := borrow(small)
	defer func() { giveBack(buf) }()
	for {
		if !r.maySend(false) {
			return errStopped
		}
		part := buf[beforeChunk : len(buf)-afterChunk]
		if !isChunked && int64(len(part)) > remaining {
			part = part[:remaining]
		}
		n, err := q.Body.Read(part)
		remaining -= int64(n)
		end := err == io.EOF
		if !isChunked {
			if end && remaining > 0 {
				err = io.ErrUnexpectedEOF
			}
			end = remaining == 0
		}
		if err != nil && !end {
			return &BodyError{err}
		}
		out := part[:n]
		if isChunked {
			if out, err = q.frameChunk(buf, n, end); err != nil {
				return &BodyError{err}
			}
		}
		if end && !r.maySend(true) {
			return errStopped
		}
		if len(out) > 0 {
			r.conn.setWriteDeadline(q.StallTimeout)
			if _, err := r.conn.Write(out); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
		size := len(buf)
		if few++; n == len(part) {
			size, few = large, 0
		} else if few == patience {
			size = small
		}
		if size != len(buf) {
			giveBack(buf)
			buf = borrow(size)
		}
	}
}

// frameChunk makes a chunk of the n bytes that are in the buffer behind the room
// for its size.
func (q *Request) frameChunk(buf []byte, n int, end bool) ([]byte, error) {
	begin, out := beforeChunk, buf[:beforeChunk+n]
	if n > 0 {
		var size [beforeChunk]byte
		digits := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
		begin -= len(digits)
		copy(buf[begin:], digits)
		out = append(out, "\r\n"...)
	}
	out = out[begin:]
	if !end {
		return out, nil
	}
	out = append(out, "0\r\n"...)
	var err error
	if len(q.Trailer) > 0 {
		out, err = appendFields(out, q.Trailer)
	}
	return append(out, "\r\n"...), err
}
