package slipswitch

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch/internal/deadline"
)

const defaultBodyTimeout = time.Minute

var errBodyTimeout = errors.New("the client has sent nothing of the request's body for the route's BodyTimeout")

// bodyTimeout returns how long a client may send nothing of a body. Zero means no
// limit.
func (r *Route) bodyTimeout(contentType string) time.Duration {
	switch {
	case r.BodyTimeout > 0:
		return r.BodyTimeout
	case strings.HasPrefix(contentType, "application/grpc"):
		return 0
	}
	return defaultBodyTimeout
}

// A timedBody is a client's body whose reads have a timeout, whether Middleware
// reads it or an upstream: else a silent client would hold both for as long as it
// likes. When the timeout expires, no more is read from the connection, or from the
// HTTP/2 stream.
type timedBody struct {
	io.ReadCloser
	timeout time.Duration
	silence deadline.Timer
	late    atomic.Bool
}

// timed returns the body of a request with its route's timeout.
func (p *Proxy) timed(w http.ResponseWriter, r *http.Request, route *Route) *timedBody {
	b := &timedBody{ReadCloser: r.Body, timeout: route.bodyTimeout(r.Header.Get("Content-Type"))}
	b.silence.Expire = func() {
		b.late.Store(true)
		p.hits.note("bodyTimeout")
		http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	}
	return b
}

func (b *timedBody) Read(p []byte) (int, error) {
	b.silence.Arm(b.timeout)
	n, err := b.ReadCloser.Read(p)
	b.silence.Pause()
	if err != nil && err != io.EOF && b.isLate() {
		err = errBodyTimeout
	}
	return n, err
}

// isLate reports whether the timeout has expired. It may be called on nil.
func (b *timedBody) isLate() bool { return b != nil && b.late.Load() }

// end ends the timeout, since the response has begun: from here on, request and
// response may be a conversation. It may be called on nil.
func (b *timedBody) end() {
	if b != nil {
		b.silence.Disarm()
	}
}
