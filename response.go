package slipswitch

import (
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/deadline"
	"github.com/slipswitch/slipswitch/internal/headers"
)

// A responseWriter writes the response to a plain request. It bounds the time for
// which the client reads nothing, flushes what the server has buffered when the
// upstream pauses, and keeps the header of Middleware over an interim response,
// after which ReverseProxy clears it.
//
// A write deadline that is set once and moved on would do for HTTP/1. HTTP/2
// resets a stream at its write deadline even if nothing is to be written.
type responseWriter struct {
	http.ResponseWriter
	proxy   *Proxy
	x       *exchange
	before  http.Header // from Middleware; nil: nothing
	confine bool        // interim responses carry nothing but links
	interim bool        // the last header written was interim
	hints   bool        // interim responses pass
	timeout time.Duration
	stall   deadline.Timer

	mu       sync.Mutex // of all that is written: the timer writes, too
	status   int        // 0: the final header is not written
	written  int64
	timer    *time.Timer // calls flushBuffered; nil until something was written
	buffered bool        // the server may have bytes that it has not written
	over     bool
}

// flushDelay is how long the server may buffer. A response that comes without a
// pause is flushed this often, and one that comes at once never.
const flushDelay = 5 * time.Millisecond

func (p *Proxy) responseWriter(w http.ResponseWriter, r *http.Request, x *exchange) *responseWriter {
	out := &responseWriter{ResponseWriter: w, proxy: p, x: x, timeout: x.match.options().stallTimeout(),
		confine: x.match.options().Tenant || !x.match.options().Headers.IsZero()}
	out.stall.Expire = func() { http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) }
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
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interim = status < 200
	if w.interim {
		if !w.hints || status == http.StatusSwitchingProtocols { // over HTTP/2 that is one, too; over HTTP/1 it would be the last
			return
		}
		header := w.ResponseWriter.Header()
		headers.RemoveHopByHop(header)
		if w.confine {
			maps.DeleteFunc(header, func(name string, _ []string) bool { return name != "Link" })
		}
	} else {
		w.status = status
		header := w.Header()
		if _, said := header["Content-Type"]; w.x.untyped && !said {
			header["Content-Type"] = nil // or the server would guess: what was uploaded as nothing is no page
		}
	}
	w.stall.Arm(w.timeout)
	defer w.stall.Pause()
	w.ResponseWriter.WriteHeader(status)
	if !w.interim {
		w.flushSoon()
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stall.Arm(w.timeout)
	defer w.stall.Pause()
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	w.flushSoon()
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buffered = false
	w.stall.Arm(w.timeout)
	defer w.stall.Pause()
	return flush(w.ResponseWriter)
}

// flushSoon has what the server buffers flushed after flushDelay. The lock is held.
func (w *responseWriter) flushSoon() {
	switch {
	case w.buffered || w.over:
		return
	case w.timer == nil:
		w.timer = time.AfterFunc(flushDelay, w.flushBuffered)
	default:
		w.timer.Reset(flushDelay)
	}
	w.buffered = true
}

func (w *responseWriter) flushBuffered() {
	defer w.proxy.rescue("Flush of Middleware's http.ResponseWriter")
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.buffered && !w.over {
		w.buffered = false
		w.stall.Arm(w.timeout)
		defer w.stall.Pause()
		flush(w.ResponseWriter)
	}
}

// release lets nothing more be flushed: the writer is the server's again.
func (w *responseWriter) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// flush flushes a writer. Where the innermost one cannot flush, those around it
// are not asked to: echo's panics.
func flush(w http.ResponseWriter) error {
	switch innermost(w).(type) {
	case http.Flusher, interface{ FlushError() error }:
		return http.NewResponseController(w).Flush()
	}
	return http.ErrNotSupported
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

// end flushes what the server has buffered while the stall timeout still runs. It
// leaves a response that is so short that it has not begun to the server, which
// counts its length, and one that Proxy.ErrorHandler has not written to the
// handler around the Proxy.
func (w *responseWriter) end() {
	w.release()
	if w.written > 2048 {
		w.FlushError()
	}
	w.stall.Disarm()
}

// cut has the server write nothing more, so that a response that is given up
// does not end as if it were whole: http.ErrAbortHandler says so, too, but the
// recovery of a framework may keep that to itself.
func cut(w http.ResponseWriter) {
	http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
}
