package slipswitch

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/deadline"
)

const defaultStall = 5 * time.Minute

func (r *Route) stallTimeout() time.Duration {
	if r.StallTimeout > 0 {
		return r.StallTimeout
	}
	return defaultStall
}

// A watch is kept over one plain request: its timeouts, and that it counts as
// activity while it carries bytes.
type watch struct {
	exchange   *exchange
	route      *Route
	place      *place
	candidates *candidates
	cancel     context.CancelCauseFunc

	uploads, downloads bool // whether these are activity

	header, stall, stream deadline.Timer

	cause  func() error // why the request's context has ended
	broken error        // what the response has broken off with
}

// watch begins the watch over a request, and returns the context that ends with
// it.
func (p *Proxy) watch(r *http.Request, x *exchange, c *candidates) (*watch, context.Context) {
	ctx, cancel := context.WithCancelCause(p.dialContext(r.Context(), x.match))
	w := &watch{exchange: x, route: x.match.options(), place: x.match.leaf.place, candidates: c, cancel: cancel}
	x.watch = w
	w.cause = func() error { return context.Cause(ctx) }
	w.uploads = p.counts(ActivityUploads)
	w.header.Expire = func() { cancel(errHeaderTimeout) }
	w.stall.Expire = func() { cancel(errStallTimeout) }
	w.stream.Expire = func() { cancel(errStreamTimeout) }
	return w, ctx
}

// end may be called again, and on nil.
func (w *watch) end() {
	if w == nil {
		return
	}
	w.header.Disarm()
	w.stall.Disarm()
	w.stream.Disarm()
	w.cancel(nil)
	w.candidates.lease.End()
}

// brokenBy may be called on nil.
func (w *watch) brokenBy() error {
	if w == nil {
		return nil
	}
	return w.broken
}

// A requestBody is the client's body as one upstream gets it. It notices an
// upstream that takes nothing: the time from the end of one read to the begin of
// the next is the time that writing takes.
type requestBody struct {
	client  io.ReadCloser
	watch   *watch
	trailer http.Header   // what goes on: the names are there already
	closed  chan struct{} // by Close
	once    sync.Once
	apart   bool // Close ends a Read; HTTP/2's transport waits for that
	ended   bool
}

func (w *watch) requestBody(client io.ReadCloser, trailer http.Header, apart bool) *requestBody {
	return &requestBody{client: client, watch: w, trailer: trailer, closed: make(chan struct{}), apart: apart}
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.ended {
		// A transport looks once more behind the end. By then the server may have
		// closed the body, since the response has begun: that is no failure to
		// send it, for which the transport would cut the response short.
		return 0, io.EOF
	}
	b.watch.stall.Pause()
	n, err := b.read(p)
	if b.watch.uploads && n > 0 {
		b.watch.place.use(time.Now())
	}
	if err == nil {
		b.watch.stall.Arm(b.watch.route.stallTimeout())
		return n, nil
	}
	if b.ended = err == io.EOF; b.ended { // else the server may be reading the rest, and the trailers
		for name := range b.trailer {
			b.trailer[name] = b.watch.exchange.trailer[name]
		}
	}
	b.watch.stall.Disarm()
	return n, err
}

// read waits for the client on a goroutine of its own where Close must not: an
// upstream may have said all before a client that only listens says a word. What
// that reads later is for nobody, and it ends with the request.
func (b *requestBody) read(p []byte) (int, error) {
	if !b.apart {
		return b.client.Read(p)
	}
	type part struct {
		n   int
		err error
	}
	buf := copyBuffers.Get()
	came := make(chan part, 1)
	go func() {
		n, err := b.client.Read(buf[:min(len(p), len(buf))])
		came <- part{n, err}
	}()
	select {
	case part := <-came:
		defer copyBuffers.Put(buf)
		return copy(p, buf[:part.n]), part.err
	case <-b.closed:
		return 0, http.ErrBodyReadAfterClose
	}
}

// Close leaves the client's body open: a transport closes it when it cannot
// connect, and the next upstream is to have it whole. ReverseProxy closes that in
// the end.
func (b *requestBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// A responseBody bounds the wait for each part, and ends the watch.
type responseBody struct {
	io.ReadCloser
	watch   *watch
	trailer func() // cleans the response's, which is complete when the body is closed
}

func (b *responseBody) Read(p []byte) (int, error) {
	b.watch.stream.Arm(b.watch.route.StreamTimeout)
	n, err := b.ReadCloser.Read(p)
	b.watch.stream.Pause()
	if b.watch.downloads && n > 0 {
		b.watch.place.use(time.Now())
	}
	if err != nil && err != io.EOF {
		b.watch.broken = cmp.Or(b.watch.cause(), err)
	}
	return n, err
}

func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.trailer()
	b.watch.end()
	return err
}
