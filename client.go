package slipswitch

import (
	"io"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A clientBody is the body of an HTTP/1 request, which an upstream may answer
// before it is read to its end. The server would then read, and drop, up to
// 256 KiB out of the middle of it before it lets the response go, unless the
// connection is to end with that. (Full duplex is no way: golang/go#68560.) And
// nobody may be reading any more when the handler returns: the server would
// wait for ever for a read that reaches the end meanwhile.
type clientBody struct {
	io.ReadCloser
	eof    atomic.Bool
	linger time.Duration // how long the client may go on sending
	mu     sync.Mutex    // held by a read
	left   bool
}

// lingerTimeout is for a client that was answered early: it could not read the
// answer if it were reset.
const lingerTimeout = 5 * time.Second

func (b *clientBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.eof.Store(true)
	}
	return n, err
}

func (b *clientBody) unread() bool { return b != nil && !b.eof.Load() }

// leave ends all reading, at once or, behind a whole response, when the client
// has lingered.
func (b *clientBody) leave(controller *http.ResponseController) {
	if b.unread() {
		controller.SetReadDeadline(time.Now().Add(b.linger))
	}
	b.mu.Lock()
	b.left = true
	b.mu.Unlock()
}

// A responseWriter bounds how long a client may take nothing, and keeps what
// Middleware has put in the header over an interim response, after which
// ReverseProxy clears it.
//
// A write deadline that is set once and moved on would do for HTTP/1. HTTP/2
// resets a stream at its write deadline even if nothing is to be written.
type responseWriter struct {
	http.ResponseWriter
	x       *exchange
	body    *clientBody // nil: none
	before  http.Header // from Middleware; nil: nothing
	confine bool        // interim responses carry nothing but links
	interim bool        // the last header written was interim
	hints   bool        // interim responses pass
	timeout time.Duration
	stall   deadline
	begun   bool // the final header is written
	written int64
}

func (p *Proxy) responseWriter(w http.ResponseWriter, r *http.Request, x *exchange) *responseWriter {
	out := &responseWriter{ResponseWriter: w, x: x, timeout: x.match.Route.stallTimeout(),
		confine: x.match.Route.Tenant || x.match.Route.Headers != nil}
	out.stall.expire = func() { http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) }
	// The server writes a 100 by itself when the body is read. It takes no care
	// that another interim response may be written at the same time.
	out.hints = r.ContentLength == 0
	if len(w.Header()) > 0 {
		out.before = w.Header().Clone()
	}
	return out
}

func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *responseWriter) Header() http.Header {
	header := w.ResponseWriter.Header()
	if w.interim {
		w.interim = false
		maps.Copy(header, w.before)
	}
	return header
}

func (w *responseWriter) WriteHeader(status int) {
	w.interim = status < 200
	if w.interim {
		if !w.hints || status == http.StatusSwitchingProtocols { // over HTTP/2 that is one, too; over HTTP/1 it would be the last
			return
		}
		header := w.ResponseWriter.Header()
		removeHopByHop(header)
		if w.confine {
			maps.DeleteFunc(header, func(name string, _ []string) bool { return name != "Link" })
		}
	} else {
		w.begun = true
		header := w.Header()
		if w.body.unread() {
			header.Set("Connection", "close")
		}
		if _, said := header["Content-Type"]; w.x.untyped && !said {
			header["Content-Type"] = nil // or the server would guess: what was uploaded as nothing is no page
		}
	}
	w.stall.arm(w.timeout)
	defer w.stall.pause()
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.begun = true
	w.stall.arm(w.timeout)
	defer w.stall.pause()
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

// FlushError is what http.ResponseController calls. Where the innermost writer
// cannot flush, those around it are not asked to: echo's panics, and that on a
// timer's goroutine would end the process.
func (w *responseWriter) FlushError() error {
	switch innermost(w.ResponseWriter).(type) {
	case http.Flusher, interface{ FlushError() error }:
	default:
		return http.ErrNotSupported
	}
	w.stall.arm(w.timeout)
	defer w.stall.pause()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// innermost returns what a writer wraps, as http.ResponseController finds it.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// end has what the server has buffered written while it is watched. A response
// that is so short that it has not begun is left to the server, which is still
// to count its length; and one that Proxy.ErrorHandler has not written, to
// whoever is in front of the Proxy.
func (w *responseWriter) end() {
	if w.body.unread() {
		w.body.linger = lingerTimeout
		if !w.begun {
			w.Header().Set("Connection", "close")
		}
	}
	if w.written > 2048 || w.begun && w.body.unread() {
		w.FlushError()
	}
	w.stall.disarm()
}

// cut has the server write nothing more, so that a response that is given up
// does not end as if it were whole: http.ErrAbortHandler says so, too, but the
// recovery of a framework may keep that to itself.
func cut(w http.ResponseWriter) {
	http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
}
