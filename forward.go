package slipswitch

import (
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Errors that end a request from within; p.fail turns them into answers.
var (
	errHeaderTimeout = errors.New("no response header in time")
	errStreamTimeout = errors.New("no further byte of the response in time")
	errStallTimeout  = errors.New("the upstream did not take the request's body in time")
	errStatus        = errors.New("the upstream's status is no final one: it has switched protocols unasked, or counts from 0")
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

// split cuts the request's path behind the route's, and behind what is captured
// of it.
func (m Match) split() (prefix, rest string) {
	n := segments(m.leaf.key)
	if m.leaf.captures()&captureSegment != 0 {
		n++
	}
	return cutSegments(m.Path, n)
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
	out := p.responseWriter(w, r, x)
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		out.body = &clientBody{ReadCloser: r.Body}
		r.Body = out.body
		defer out.body.leave(http.NewResponseController(w))
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
			delete(pr.Out.Header, "Connection") // Middleware's: nothing is upgraded on this way
			delete(pr.Out.Header, "Upgrade")
			for name := range pr.Out.Trailer {
				if _, ok := pr.Out.Header[name]; ok {
					delete(pr.Out.Trailer, name) // some servers would let it replace what Middleware has set
				}
			}
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
	targets, err := p.leads(r.Context(), x.match)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(p.dialContext(r.Context(), x.match))
	c := p.picker.among(targets, p.stuck(r.Header, x, targets))
	route.outgoing(r.Header, r.Trailer)
	w := &watch{exchange: x, route: route, choice: c, place: x.match.leaf.place, cancel: cancel}
	w.header.expire = func() { cancel(errHeaderTimeout) }
	w.stall.expire = func() { cancel(errStallTimeout) }
	w.stream.expire = func() { cancel(errStreamTimeout) }
	if route.HeaderTimeout > 0 {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { w.header.arm(route.HeaderTimeout) },
		})
	}
	r = r.WithContext(ctx)
	if r.Body != nil {
		r.Body = &requestBody{ReadCloser: r.Body, watch: w, trailer: r.Trailer}
	}
	r.Host = route.upstreamHost(r.Host)
	query, force := r.URL.RawQuery, r.URL.ForceQuery
	response, err := tryEach(c, func(t *target) (*http.Response, error) {
		transport, err := p.dialer.transport(t, route.TLSProfile)
		if err != nil {
			return nil, err
		}
		r.URL = t.url(x.match, query, force)
		if r.Host == "" && t.scheme == schemeUnix { // or the URL's would be taken
			r.Host = "localhost"
		}
		return transport.RoundTrip(r)
	})
	w.header.disarm()
	if err == nil && response.StatusCode < 200 {
		response.Body.Close()
		err = errStatus
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		w.end()
		return nil, err
	}
	p.incoming(response.Header, r, x, c)
	response.Body = &responseBody{response.Body, w}
	return response, nil
}

// url returns where to send a request: the path exactly as it is spelt.
func (t *target) url(m Match, query string, force bool) *url.URL {
	u := &url.URL{Scheme: "http", Host: t.addr, RawQuery: query, ForceQuery: force}
	switch t.scheme {
	case schemeHTTPS:
		u.Scheme = "https"
	case schemeUnix:
		u.Host = socketHost(t.addr)
	}
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
	exchange *exchange
	route    *Route
	place    *place
	choice   *choice
	cancel   context.CancelCauseFunc

	header, stall, stream deadline
}

func (w *watch) end() {
	w.header.disarm()
	w.stall.disarm()
	w.stream.disarm()
	w.cancel(nil)
	w.choice.end()
}

// A deadline calls expire unless it is paused in time, and never behind that.
// It makes its timer when it is first armed.
type deadline struct {
	expire func()

	mu          sync.Mutex
	timer       *time.Timer
	armed, over bool
}

func (d *deadline) arm(timeout time.Duration) {
	if timeout <= 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = !d.over
	switch {
	case d.over:
	case d.timer == nil:
		d.timer = time.AfterFunc(timeout, d.fire)
	default:
		d.timer.Reset(timeout)
	}
}

func (d *deadline) fire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.armed {
		d.armed = false
		d.expire()
	}
}

func (d *deadline) pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.armed {
		d.armed = false
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

// A requestBody notices an upstream that takes nothing: the time from the end
// of one read to the begin of the next is the time that writing takes.
type requestBody struct {
	io.ReadCloser
	watch   *watch
	trailer http.Header // what goes on: the names are there already
	ended   bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.ended {
		// A transport looks once more behind the end. By then the server may have
		// closed the body, since the response has begun: that is no failure to
		// send it, for which the transport would cut the response short.
		return 0, io.EOF
	}
	b.watch.stall.pause()
	n, err := b.ReadCloser.Read(p)
	b.watch.place.use(time.Now())
	if err == nil {
		b.watch.stall.arm(b.watch.route.stallTimeout())
		return n, nil
	}
	if b.ended = err == io.EOF; b.ended { // else the server may be reading the rest, and the trailers
		for name := range b.trailer {
			b.trailer[name] = b.watch.exchange.trailer[name]
		}
	}
	b.watch.stall.disarm()
	return n, err
}

// Close leaves the body open: a transport closes it when it cannot connect, and
// the next upstream is to have it whole. ReverseProxy closes it in the end.
func (b *requestBody) Close() error { return nil }

// A responseBody bounds the wait for each part, and ends the watch.
type responseBody struct {
	io.ReadCloser
	watch *watch
}

func (b *responseBody) Read(p []byte) (int, error) {
	b.watch.stream.arm(b.watch.route.StreamTimeout)
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
//
// A write deadline that is set once and moved on would do for HTTP/1. HTTP/2
// resets a stream at its write deadline even if nothing is to be written.
type responseWriter struct {
	http.ResponseWriter
	body    *clientBody // nil: none
	before  http.Header // from Middleware; nil: nothing
	confine bool        // interim responses carry nothing but links
	interim bool        // the last header written was interim
	hints   bool        // interim responses pass
	timeout time.Duration
	stall   deadline
	written int64
}

func (p *Proxy) responseWriter(w http.ResponseWriter, r *http.Request, x *exchange) *responseWriter {
	out := &responseWriter{ResponseWriter: w, timeout: x.match.Route.stallTimeout(),
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
		if !w.hints {
			return
		}
		header := w.ResponseWriter.Header()
		removeHopByHop(header)
		if w.confine {
			maps.DeleteFunc(header, func(name string, _ []string) bool { return name != "Link" })
		}
	} else if w.body.unread() {
		w.Header().Set("Connection", "close")
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
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// end has what the server has buffered written while it is watched. A response
// that is so short that it has not begun is left to the server, which is still
// to count its length.
func (w *responseWriter) end() {
	if w.body.unread() {
		w.body.linger = lingerTimeout
	}
	if w.written > 2048 || w.body.unread() {
		w.FlushError()
	}
	w.stall.disarm()
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
