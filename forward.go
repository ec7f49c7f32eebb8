package slipswitch

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/headers"
	"github.com/slipswitch/slipswitch/internal/http1"
)

const defaultStall = 5 * time.Minute

func (r *Route) stallTimeout() time.Duration {
	if r.StallTimeout > 0 {
		return r.StallTimeout
	}
	return defaultStall
}

// errStatus is the error of a response that is no final one.
var errStatus = errors.New("the upstream's status has not three digits from 200 on")

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
	if r.Body == nil || r.Body == http.NoBody {
		r.Body, r.ContentLength = http.NoBody, 0
	} else if r.Body != io.ReadCloser(x.sent) {
		defer r.Body.Close() // Middleware's
	}
	if limit := x.match.options().MaxBody; limit > 0 && r.Body != http.NoBody {
		if r.ContentLength > limit {
			p.fail(w, r, &http.MaxBytesError{Limit: limit})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
	}
	out := p.responseWriter(w, r, x)
	c, err := p.candidates(r.Context(), x, r.Header)
	if err != nil {
		p.fail(out, r, err)
		return
	}
	defer func() { c.lease.End() }()
	q := p.request(r, x)
	q.Interim = out.interimResponse
	a, err := p.send(r.Context(), r, x, c, q)
	if err != nil {
		p.fail(out, r, err)
		return
	}
	defer a.body.Close()
	x.sent.take() // the upstream may want the rest
	p.respond(out, r, x, c, a)
}

// request returns what is asked of an upstream, whichever it will be.
func (p *Proxy) request(r *http.Request, x *exchange) *http1.Request {
	route := x.match.options()
	q := &http1.Request{
		Method: r.Method, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery,
		Header: r.Header, ContentLength: r.ContentLength,
		HeaderTimeout: route.HeaderTimeout, StreamTimeout: route.StreamTimeout, StallTimeout: route.stallTimeout(),
	}
	if len(r.Trailer) > 0 {
		q.Trailer = maps.Clone(r.Trailer)
	}
	if route.changesRequests() {
		q.Header = r.Header.Clone() // whoever is around the Proxy has the other
		route.outgoing(q.Header, q.Trailer)
	}
	if q.ContentLength != 0 {
		q.Body = &requestBody{client: r.Body, proxy: p, exchange: x, trailer: q.Trailer, active: p.counts(ActivityUploads)}
	}
	return q
}

// send sends a request to the first candidate that can be reached, and returns its
// final answer.
func (p *Proxy) send(ctx context.Context, r *http.Request, x *exchange, c *candidates, q *http1.Request) (*reply, error) {
	route := x.match.options()
	a, err := try(c, func(t *target) (*reply, error) {
		q.Path, q.Host = x.match.forwardPath(t), cmp.Or(route.upstreamHost(r.Host), t.authority())
		return p.transports.roundTrip(ctx, t, route.TLSProfile, q)
	})
	x.body.end()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return a, err
}

// A reply is the final response of an upstream, by whatever protocol.
type reply struct {
	status  int
	header  http.Header
	trailer *http.Header // announced names, and the values when the body has been read
	body    interface {
		io.ReadCloser
		io.WriterTo
	}
	http1 *http1.Response // nil: it is HTTP/2's
}

// respond passes an answer on to the client.
func (p *Proxy) respond(w *responseWriter, r *http.Request, x *exchange, c *candidates, a *reply) {
	whole := false
	defer func() {
		if !whole { // it panics
			cut(w)
		}
	}()
	named := a.header["Connection"]
	headers.RemoveHopByHop(a.header)
	x.match.options().cleanTrailer(*a.trailer, named)
	p.incoming(a.header, x, c)
	header := w.Header()
	for name, values := range a.header {
		if before := header[name]; before != nil {
			values = slices.Concat(before, values)
		}
		header[name] = values
	}
	announced := slices.Sorted(maps.Keys(*a.trailer))
	if len(announced) > 0 {
		header.Add("Trailer", strings.Join(announced, ", "))
	}
	w.active = p.counts(ActivityDownloads) && a.status < 300
	w.WriteHeader(a.status)
	if _, err := a.body.WriteTo(w.spliceable()); err != nil {
		if w.err == nil && r.Context().Err() == nil && x.sent.fault() == nil { // it is the upstream's doing
			p.failures.log(p.log(), "slipswitch: a response has broken off", r, w.status, err)
			w.FlushError() // the client gets what has come of it
		}
		panic(http.ErrAbortHandler)
	}
	x.match.options().cleanTrailer(*a.trailer, named)
	w.writeTrailer(*a.trailer, announced)
	w.end()
	whole = true
}

// A requestBody is the client's body, or Middleware's, as upstreams get it. It is
// read on a goroutine of its own, where a panic would end the process.
type requestBody struct {
	client   io.Reader
	proxy    *Proxy
	exchange *exchange
	trailer  http.Header // what goes on: the names are there already
	active   bool        // what comes is activity
}

func (b *requestBody) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, &Error{Status: http.StatusInternalServerError, Reason: "internal error",
				Err: b.proxy.panicked("the body that Middleware has set", v)}
		}
	}()
	n, err = b.client.Read(p)
	if b.active && n > 0 {
		b.exchange.match.leaf.place.use(time.Now())
	}
	if err == io.EOF { // else the server may be reading the rest, and the trailers
		for name := range b.trailer {
			b.trailer[name] = b.exchange.trailer[name]
		}
	}
	return n, err
}
