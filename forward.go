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

	"github.com/slipswitch/slipswitch/internal/canon"
)

// Errors that end a request from within; p.fail turns them into answers.
var (
	errHeaderTimeout = errors.New("no response header in time")
	errStreamTimeout = errors.New("no further byte of the response in time")
	errStallTimeout  = errors.New("the upstream did not take the request's body in time")
	errStatus        = errors.New("the upstream's status is no final one: it has switched protocols unasked, or has not three digits")
)

// redirectsToSlash reports whether a request is for the bare path of a
// stripping route. Relative links of the page there would lead one level too
// high.
func redirectsToSlash(r *http.Request, match Match) bool {
	if !match.options().StripPath || match.Key().Exact || r.Method != http.MethodGet && r.Method != http.MethodHead {
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
	return canon.CutSegments(m.Path, n)
}

// forwardPath returns the path that is forwarded to a target.
func (m Match) forwardPath(t *target) string {
	path := m.Path
	if m.options().StripPath {
		_, rest := m.split()
		path = "/" + strings.TrimLeft(rest, "/") // one slash: "//evil.com" would name a host
	}
	return t.path + path
}

// forwardHTTP answers one plain request from an upstream.
func (p *Proxy) forwardHTTP(w http.ResponseWriter, r *http.Request, x *exchange) {
	route := x.match.options()
	if r.Body == nil {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	if r.Body == http.NoBody {
		r.ContentLength = 0
	} else if r.Body != io.ReadCloser(x.sent) {
		r.Body = foreignBody{r.Body, p}
	}
	if limit := route.MaxBody; limit > 0 {
		if r.ContentLength > limit {
			p.fail(w, r, &http.MaxBytesError{Limit: limit})
			return
		}
		if r.Body != http.NoBody {
			r.Body = http.MaxBytesReader(w, r.Body, limit)
		}
	}
	out := p.responseWriter(w, r, x)
	defer out.release()
	whole := false
	defer func() {
		if !whole { // it panics
			p.breakOff(out, r, x, x.watch.brokenBy())
			x.watch.end()
		}
	}()
	p.plain.ServeHTTP(out, r)
	out.end()
	whole = true
}

// breakOff ends a response that is not whole. If that is the upstream's doing, which
// err tells, the client gets what has come of it, and the log is told.
func (p *Proxy) breakOff(w *responseWriter, r *http.Request, x *exchange, err error) {
	if err != nil && r.Context().Err() == nil && x.sent.fault() == nil {
		p.failures.log(p.log(), "slipswitch: a response has broken off", r, w.status, err)
		w.FlushError()
	}
	cut(w)
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
// reached, and watches over its timeouts. An upgrade that was refused has its
// answer already.
func (p *Proxy) roundTrip(r *http.Request) (*http.Response, error) {
	x := exchangeFrom(r.Context())
	if x.refusal != nil {
		w, ctx := p.watch(r, x, x.refusal.candidates)
		x.refusal.until(ctx)
		return p.watched(w, x.refusal.response)
	}
	candidates, err := p.candidates(r.Context(), x, r.Header)
	if err != nil {
		return nil, err
	}
	route := x.match.options()
	w, ctx := p.watch(r, x, candidates)
	route.outgoing(r.Header, r.Trailer)
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = []string{""} // or the transport would send its own
	}
	if route.HeaderTimeout > 0 {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { w.header.Arm(route.HeaderTimeout) },
		})
	}
	r = r.WithContext(ctx)
	body := r.Body
	if _, said := r.Header["Idempotency-Key"]; !said && (r.Method == http.MethodPut || r.Method == http.MethodDelete) {
		// A transport repeats it if a connection that was kept turns out to be closed
		// (RFC 9110 §9.2.2). Without a value the field is not sent.
		r.Header["Idempotency-Key"] = nil
	}
	host := route.upstreamHost(r.Host)
	query, force := r.URL.RawQuery, r.URL.ForceQuery
	response, err := try(candidates, func(t *target) (*http.Response, error) {
		r.URL, r.Host = t.url(x.match.forwardPath(t), query, force), host
		if body != nil {
			r.Body = w.requestBody(body, r.Trailer, t.scheme == schemeHTTPS || t.scheme == schemeH2C)
		}
		return p.transports.roundTrip(t, route.TLSProfile, r)
	})
	w.header.Disarm()
	x.body.end()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		w.end()
		return nil, err
	}
	x.sent.take() // it may want the rest
	return p.watched(w, response)
}

// watched returns a response as it goes on, with the watch over its body.
func (p *Proxy) watched(w *watch, response *http.Response) (*http.Response, error) {
	if response.StatusCode < 200 || response.StatusCode > 999 {
		response.Body.Close()
		w.end()
		return nil, errStatus
	}
	named := response.Header["Connection"]
	clean := func() { w.route.cleanTrailer(response.Trailer, named) }
	clean() // of what is announced
	p.incoming(response.Header, w.exchange, w.candidates)
	w.downloads = p.counts(ActivityDownloads) && response.StatusCode < 300
	response.Body = &responseBody{response.Body, w, clean}
	return response, nil
}

// url returns where to send a request, without the host: the path exactly as it is spelt.
func (t *target) url(path, query string, force bool) *url.URL {
	u := &url.URL{Scheme: "http", RawQuery: query, ForceQuery: force}
	if t.scheme == schemeHTTPS {
		u.Scheme = "https"
	}
	if strings.HasPrefix(path, "//") {
		u.RawPath = path
		u.Path, _ = url.PathUnescape(path)
	} else {
		u.Opaque = path // net/url would escape some bytes anew
	}
	return u
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
