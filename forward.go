package slipswitch

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Errors that end a request from within; p.fail turns them into answers.
var (
	errHeaderTimeout = errors.New("no response header in time")
	errStreamTimeout = errors.New("no further byte of the response in time")
	errStallTimeout  = errors.New("the upstream did not take the request's body in time")
	errSwitched      = errors.New("the upstream switched protocols unasked")
)

const defaultStall = 5 * time.Minute

func (r *Route) stallTimeout() time.Duration {
	if r.StallTimeout > 0 {
		return r.StallTimeout
	}
	return defaultStall
}

// redirectsToSlash reports whether a request is for the bare path of a
// stripping route. Relative links of the page there would lead one level too
// high.
func redirectsToSlash(r *http.Request, match Match) bool {
	if !match.Route.StripPath || match.Route.Exact || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	prefix, rest := match.split()
	return rest == "" && prefix != ""
}

// redirectToSlash answers with a relative Location, since only the client
// knows the public scheme, host and path.
func redirectToSlash(w http.ResponseWriter, r *http.Request, match Match) {
	last := match.Path[strings.LastIndexByte(match.Path, '/')+1:]
	location := last + "/"
	if last == "" || strings.Contains(last, ":") {
		location = "./" + location // else "a:" would be a scheme
	}
	if r.URL.RawQuery != "" {
		location += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// split cuts the request's path behind the route's.
func (m Match) split() (prefix, rest string) {
	return cutSegments(m.Path, segments(m.leaf.key))
}

// forwardPath returns the path that is forwarded to a target.
func (m Match) forwardPath(t *target) string {
	path := m.Path
	if m.Route.StripPath {
		_, rest := m.split()
		path = "/" + strings.TrimLeft(rest, "/") // one slash: "//evil.com" would name a host
	}
	return t.path + path
}

// forwardHTTP answers one plain request from an upstream.
func (p *Proxy) forwardHTTP(w http.ResponseWriter, r *http.Request, x *exchange) {
	route := x.match.Route
	if limit := route.MaxBody; limit > 0 {
		if r.ContentLength > limit {
			p.fail(w, r, &http.MaxBytesError{Limit: limit})
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = http.MaxBytesReader(w, r.Body, limit)
		}
	}
	out := &responseWriter{ResponseWriter: w, stall: route.stallTimeout()}
	if len(w.Header()) > 0 {
		out.before = w.Header().Clone()
	}
	p.plain.ServeHTTP(out, r)
	out.end()
}

// reverseProxy returns the forwarder of plain requests. Its own notions of
// headers, queries and upgrades are put right here and in roundTrip.
func (p *Proxy) reverseProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			restoreForwarded(pr.Out.Header, pr.In.Header)
			pr.Out.URL.RawQuery = pr.In.URL.RawQuery
		},
		Transport:    roundTripper(p.roundTrip),
		BufferPool:   &copyBuffers,
		ErrorHandler: p.fail,
		ErrorLog:     log.New(io.Discard, "", 0),
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip sends a request to the first of the route's upstreams that can be
// reached, and watches over its timeouts.
func (p *Proxy) roundTrip(r *http.Request) (*http.Response, error) {
	x := exchangeFrom(r.Context())
	route := x.match.Route
	transport, err := p.dialer.transport(route.TLSProfile)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(withDialTimeout(r.Context(), route.dialTimeout()))
	w := &watch{route: route, place: x.match.leaf.place, cancel: cancel, trailer: x.trailer}
	if route.HeaderTimeout > 0 {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { w.header.arm(w, route.HeaderTimeout, errHeaderTimeout) },
		})
	}
	r = r.WithContext(ctx)
	if r.Body != nil {
		r.Body = &requestBody{r.Body, w, r.Trailer}
	}
	if route.UpstreamHost != "" {
		r.Host = route.UpstreamHost
	}
	query, force := r.URL.RawQuery, r.URL.ForceQuery
	response, err := tryEach(x.match.leaf, func(t *target) (*http.Response, error) {
		r.URL = t.url(x.match, query, force)
		return transport.RoundTrip(r)
	})
	w.header.disarm()
	if err == nil && response.StatusCode == http.StatusSwitchingProtocols {
		response.Body.Close()
		err = errSwitched
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		w.end()
		return nil, err
	}
	response.Body = &responseBody{response.Body, w}
	return response, nil
}

// url returns where to send a request: the path exactly as it is spelt.
func (t *target) url(m Match, query string, force bool) *url.URL {
	u := &url.URL{Scheme: t.scheme(), Host: t.addr, RawQuery: query, ForceQuery: force}
	path := m.forwardPath(t)
	if strings.HasPrefix(path, "//") {
		u.RawPath = path
		u.Path, _ = url.PathUnescape(path)
	} else {
		u.Opaque = path // net/url would escape some bytes anew
	}
	return u
}

// A watch is kept over one plain request: its timeouts, and that it counts as
// activity while it carries bytes.
type watch struct {
	route   *Route
	place   *place
	cancel  context.CancelCauseFunc
	trailer http.Header // the client's, complete once the body is read

	header, stall, stream deadline
}

func (w *watch) end() {
	w.header.disarm()
	w.stall.disarm()
	w.stream.disarm()
	w.cancel(nil)
}

// A deadline cancels a watched request unless it is paused in time. It makes
// its timer when it is first armed.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

func (d *deadline) arm(w *watch, timeout time.Duration, cause error) {
	if timeout <= 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.over:
	case d.timer == nil:
		d.timer = time.AfterFunc(timeout, func() { w.cancel(cause) })
	default:
		d.timer.Reset(timeout)
	}
}

func (d *deadline) pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
}

// disarm is for good.
func (d *deadline) disarm() {
	d.pause()
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
}

// A requestBody notices an upstream that takes nothing: the time from the end
// of one read to the begin of the next is the time that writing takes.
type requestBody struct {
	io.ReadCloser
	watch   *watch
	trailer http.Header // what goes on: the names are there already
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.watch.stall.pause()
	n, err := b.ReadCloser.Read(p)
	b.watch.place.use(time.Now())
	if err == nil {
		b.watch.stall.arm(b.watch, b.watch.route.stallTimeout(), errStallTimeout)
		return n, nil
	}
	for name := range b.trailer {
		b.trailer[name] = b.watch.trailer[name]
	}
	b.watch.stall.disarm()
	return n, err
}

// A responseBody bounds the wait for each part, and ends the watch.
type responseBody struct {
	io.ReadCloser
	watch *watch
}

func (b *responseBody) Read(p []byte) (int, error) {
	b.watch.stream.arm(b.watch, b.watch.route.StreamTimeout, errStreamTimeout)
	n, err := b.ReadCloser.Read(p)
	b.watch.stream.pause()
	b.watch.place.use(time.Now())
	return n, err
}

func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.watch.end()
	return err
}

// A responseWriter bounds how long a client may take nothing, and keeps what
// Middleware has put in the header over an interim response, after which
// ReverseProxy clears it.
type responseWriter struct {
	http.ResponseWriter
	before http.Header // from Middleware; nil: nothing
	stall  time.Duration
	until  time.Time // the write deadline that is set

	written int64
}

func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *responseWriter) WriteHeader(status int) {
	if status >= 200 {
		for name, values := range w.before {
			if _, ok := w.Header()[name]; !ok {
				w.Header()[name] = values
			}
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	// The deadline is moved on when a quarter of it is over, not each time.
	if now := time.Now(); w.until.Sub(now) < w.stall*3/4 {
		w.until = now.Add(w.stall)
		http.NewResponseController(w.ResponseWriter).SetWriteDeadline(w.until)
	}
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

// end takes the deadline away from the connection's next response. What the
// server has buffered is written before; a response that is so short that it
// has not begun is not, since the server is still to count its length.
func (w *responseWriter) end() {
	if w.until.IsZero() {
		return
	}
	controller := http.NewResponseController(w.ResponseWriter)
	if w.written > 2048 {
		controller.Flush()
	}
	controller.SetWriteDeadline(time.Time{})
}

// copyBuffers are shared by all proxies of the process: 32 KiB each.
var copyBuffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return buf[:]
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put((*[32 << 10]byte)(buf)) }
