package main

import (
	"io"
	"net/http"
	"time"
)

// bound ends, after --timeout, a client that sends nothing of its request's body,
// or reads nothing of the response. WebSockets may be silent. The server removes
// the deadlines at the end of the body, and of the response.
func (o *options) bound(next http.Handler) http.Handler {
	if o.timeout == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isUpgrade(r) {
			next.ServeHTTP(w, r)
			return
		}
		control := http.NewResponseController(w)
		if r.ContentLength != 0 {
			r.Body = &boundedBody{r.Body, control, o.timeout}
		}
		next.ServeHTTP(&boundedWriter{w, control, o.timeout}, r)
	})
}

type boundedBody struct {
	io.ReadCloser
	control *http.ResponseController
	timeout time.Duration
}

func (b *boundedBody) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(b.timeout))
	return b.ReadCloser.Read(p)
}

type boundedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func (w *boundedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *boundedWriter) Write(p []byte) (int, error) {
	w.control.SetWriteDeadline(time.Now().Add(w.timeout))
	return w.ResponseWriter.Write(p)
}
