package slipswitch

import (
	"maps"
	"net/http"
	"time"
)

// A responseWriter bounds how long a client may take nothing, and keeps what
// Middleware has put in the header over an interim response, after which
// ReverseProxy clears it.
//
// A write deadline that is set once and moved on would do for HTTP/1. HTTP/2
// resets a stream at its write deadline even if nothing is to be written.
type responseWriter struct {
	http.ResponseWriter
	x       *exchange
	before  http.Header // from Middleware; nil: nothing
	confine bool        // interim responses carry nothing but links
	interim bool        // the last header written was interim
	hints   bool        // interim responses pass
	timeout time.Duration
	stall   deadline
	status  int // 0: the final header is not written
	written int64
}

func (p *Proxy) responseWriter(w http.ResponseWriter, r *http.Request, x *exchange) *responseWriter {
	out := &responseWriter{ResponseWriter: w, x: x, timeout: x.match.options().stallTimeout(),
		confine: x.match.options().Tenant || x.match.options().Headers != nil}
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
		w.status = status
		header := w.Header()
		if _, said := header["Content-Type"]; w.x.untyped && !said {
			header["Content-Type"] = nil // or the server would guess: what was uploaded as nothing is no page
		}
	}
	w.stall.arm(w.timeout)
	defer w.stall.pause()
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.stall.arm(w.timeout)
	defer w.stall.pause()
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	w.stall.arm(w.timeout)
	defer w.stall.pause()
	return flush(w.ResponseWriter)
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

// end has what the server has buffered written while it is watched. A response
// that is so short that it has not begun is left to the server, which is still
// to count its length; and one that Proxy.ErrorHandler has not written, to
// whoever is in front of the Proxy.
func (w *responseWriter) end() {
	if w.written > 2048 {
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
