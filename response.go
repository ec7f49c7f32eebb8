package slipswitch

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch/internal/deadline"
	"github.com/slipswitch/slipswitch/internal/headers"
)

// A responseWriter bounds how long a client may take nothing, and remembers what
// has failed with it.
//
// A write deadline that is set once and moved on would do for HTTP/1. HTTP/2
// resets a stream at its write deadline even if nothing is to be written.
type responseWriter struct {
	http.ResponseWriter
	proxy   *Proxy
	x       *exchange
	confine bool // interim responses carry nothing but links
	hints   bool // interim responses pass
	active  bool // what is written is activity
	timeout time.Duration
	stall   deadline.Timer
	status  int // 0: the final header is not written
	written int64
	err     error // of writing to the client
}

// serverBuffer is how much the server holds back: what fits in it waits for nobody.
const serverBuffer = 2 << 10

func (p *Proxy) responseWriter(w http.ResponseWriter, r *http.Request, x *exchange) *responseWriter {
	out := &responseWriter{ResponseWriter: w, proxy: p, x: x, timeout: x.match.options().stallTimeout(),
		confine: x.match.options().Tenant || !x.match.options().Headers.IsZero()}
	out.stall.Expire = func() { http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) }
	// The server writes a 100 by itself when the body is read. It takes no care
	// that another interim response may be written at the same time.
	out.hints = r.ContentLength == 0
	return out
}

func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// interimResponse passes on a 1xx, which takes nothing from what Middleware has set for
// the final response.
func (w *responseWriter) interimResponse(status int, upstream http.Header) error {
	if !w.hints || status == http.StatusSwitchingProtocols { // over HTTP/2 that is one, too; over HTTP/1 it would be the last
		return nil
	}
	headers.RemoveHopByHop(upstream)
	if w.confine {
		maps.DeleteFunc(upstream, func(name string, _ []string) bool { return name != "Link" })
	}
	header := w.Header()
	final := maps.Clone(header)
	clear(header)
	maps.Copy(header, upstream)
	w.stall.Arm(w.timeout)
	w.ResponseWriter.WriteHeader(status)
	w.stall.Pause()
	clear(header)
	maps.Copy(header, final)
	return nil
}

func (w *responseWriter) WriteHeader(status int) {
	w.status = status
	header := w.Header()
	if _, said := header["Content-Type"]; w.x.untyped && !said {
		header["Content-Type"] = nil // or the server would guess: what was uploaded as nothing is no page
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.written+int64(len(p)) > serverBuffer {
		w.stall.Arm(w.timeout)
		defer w.stall.Pause()
	}
	n, err := w.ResponseWriter.Write(p)
	return n, w.wrote(int64(n), err)
}

// wrote takes note of what was written.
func (w *responseWriter) wrote(n int64, err error) error {
	w.written += n
	if w.active && n > 0 {
		w.x.match.leaf.place.use(time.Now())
	}
	if err != nil {
		w.err = err
	}
	return err
}

// spliceable returns the writer with a method ReadFrom if the one below has one: the
// kernel may then move what a socket has to the client.
func (w *responseWriter) spliceable() io.Writer {
	if from, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return &splicingWriter{w, from}
	}
	return w
}

type splicingWriter struct {
	*responseWriter
	from io.ReaderFrom
}

// ReadFrom hands the source on as it is, which the server looks at.
func (w *splicingWriter) ReadFrom(source io.Reader) (int64, error) {
	w.stall.Arm(w.timeout)
	defer w.stall.Pause()
	n, err := w.from.ReadFrom(source)
	return n, w.wrote(n, err)
}

// FlushError is what http.ResponseController calls. Where nothing can be flushed
// that is no failure.
func (w *responseWriter) FlushError() error {
	defer w.proxy.rescue("Flush of Middleware's http.ResponseWriter")
	w.stall.Arm(w.timeout)
	defer w.stall.Pause()
	err := flush(w.ResponseWriter)
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return w.wrote(0, err)
}

// writeTrailer writes the trailer of a response, some names of which were announced.
func (w *responseWriter) writeTrailer(trailer http.Header, announced []string) {
	if len(trailer) == 0 {
		return
	}
	w.FlushError() // or the server would count a short body's length, after which there is none
	header := w.Header()
	for name, values := range trailer {
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		header[name] = append(header[name], values...)
	}
}

// end has what the server has buffered written while it is watched. A response
// that is so short that it has not begun is left to the server, which is still
// to count its length.
func (w *responseWriter) end() {
	if w.written > serverBuffer {
		w.FlushError()
	}
	w.stall.Disarm()
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

// cut has the server write nothing more, so that a response that is given up
// does not end as if it were whole: http.ErrAbortHandler says so, too, but the
// recovery of a framework may keep that to itself.
func cut(w http.ResponseWriter) {
	http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
}
