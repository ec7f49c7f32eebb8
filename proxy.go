package slipswitch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/headers"
	"github.com/slipswitch/slipswitch/internal/journal"
	"github.com/slipswitch/slipswitch/internal/splice"
)

// A Proxy is an http.Handler that forwards each request to where the router's
// table leads it at that moment. Only Router is required. The fields must not
// be changed once it serves; its methods may be called concurrently.
//
// Mount it outermost: http.ServeMux and most frameworks merge slashes and
// escape paths anew before a handler sees them.
type Proxy struct {
	Router *Router

	// Middleware, if set, is run for each request that has a route, before it
	// is forwarded: next forwards. It sees the match (MatchFrom), the resolved
	// path, and headers from which all that a client must not set is gone.
	// Headers that it adds to the request reach the upstream, headers that it
	// adds to the response reach the client, on upgrades too.
	//
	// What it changes of the method, the Host, the query and the body is
	// forwarded; the path is that of the match.
	//
	// For it, an upgraded request ends with the 101: next returns and the
	// request's context is cancelled while the tunnel lives on.
	Middleware func(next http.Handler) http.Handler

	// TunnelValue, if set, is called for each upgrade that is about to open a
	// tunnel. What it returns is kept with the tunnel: all that one needs to
	// know later of the request, which itself is not kept.
	TunnelValue func(*http.Request) any

	// Reauthorize, if set, is asked again and again whether an open tunnel may
	// stay, which its Route, Client and Value tell. An error ends it with the close
	// code 1008 and Why WhyLoginExpired. So does a panic, and having no answer
	// within 10 s, after which the context ends: who wants sockets to outlive an
	// outage of whoever knows returns nil where that is all that he has found out.
	// It is called concurrently, for one tunnel not twice at a time.
	Reauthorize func(ctx context.Context, t *Tunnel) error

	// ReauthorizeEvery is the time between two such questions, give or take a
	// twentieth; the first comes when half of it or more is over. Zero: 5 min.
	ReauthorizeEvery time.Duration

	// TunnelClosed, if set, is called with the report of each tunnel that has
	// ended, in the order of their ends, one at a time. A slow one delays
	// reports, never traffic: 100,000 of them wait, bursts included. One that hangs
	// for longer misses what comes then, which LimitsHit counts as "reports" and
	// the log tells; CloseReports has the last reports in any case.
	TunnelClosed func(CloseReport)

	// BurstDetected, if set, is called with each burst of closes, on the same
	// goroutine as TunnelClosed. The burst is logged in any case.
	BurstDetected func(Burst)

	// TrustedProxies are the peers that are believed about the client: by
	// X-Forwarded-For, -Proto, -Host and -Port or, if none of the first three is
	// there, by Forwarded (RFC 7239). A trusted proxy must set or delete these
	// fields, or append to them: it must not pass its client's own on. Zero means
	// that no peer is believed. These fields, and others from which servers read the
	// client's address, scheme or host, are then dropped and written anew.
	TrustedProxies []netip.Prefix

	// TrustUnix has the peers on Unix sockets, which have no address, believed as
	// TrustedProxies are. The Proxy knows of the socket by http.LocalAddrContextKey,
	// which http.Server sets. Otherwise all clients on Unix sockets are one to
	// Limits.
	TrustUnix bool

	// ActivityKinds are the kinds of traffic that count as activity of a route.
	// Zero means all but ActivityClientBytes and ActivityUpstreamBytes.
	ActivityKinds ActivityKinds

	// Limits bound how many requests and tunnels there may be, and what they may
	// use.
	Limits Limits

	// StrictPath refuses paths with an escaped slash or backslash, or with a
	// semicolon: some servers split paths there.
	StrictPath bool

	// TemplateAddresses are all that the names which templates make may lead to:
	// best, the network that workspaces are in. Nil: everything but loopback,
	// link-local, multicast and unspecified addresses, those of the clouds'
	// metadata and this machine's own. The address itself is looked at, each
	// time when it is connected to.
	TemplateAddresses []netip.Prefix

	// Resolver finds out where routes with Resolve set lead. Nil: they are
	// answered with 502; see Validate.
	Resolver *Resolver

	// StickyKey is the key of sticky cookies. Several gateways need the same.
	// Empty: a random one.
	StickyKey []byte

	// DialContext connects to upstreams. Nil: a net.Dialer. The context ends
	// with the route's DialTimeout. For TemplateAddresses the connection's
	// RemoteAddr is looked at, since nothing is known before it is there. TCP
	// keepalive is for it to set.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// TLSProfiles are what routes name in TLSProfile; the one named "" is for
	// routes that name none. Protocols offered by ALPN are set by the Proxy. What
	// names another is answered with 502; see Validate.
	TLSProfiles map[string]*tls.Config

	// ErrorHandler answers a request that got no answer from an upstream.
	// Nil: JSON, HTML or text, whichever the client prefers. Proxy-Status,
	// Retry-After and the like are set in w already. It may leave it to a handler
	// in front of the Proxy to write the answer.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err *Error)

	// Logger is told what an operator must act on, from a goroutine of its own:
	// one that hangs holds up nothing else. It is told of the first 1,000 records
	// that wait for it, and of how many were dropped after them. Nil means
	// slog.Default(); one with slog.DiscardHandler keeps silent.
	Logger *slog.Logger

	start    sync.Once
	forward  http.Handler // Middleware around forwardHTTP and upgrade
	plain    http.Handler // the ReverseProxy
	dialer   dialer
	picker   picker
	sticky   []byte
	life     context.Context // until Shutdown
	end      context.CancelFunc
	engine   splice.Engine
	tunnels  registry
	seats    seats
	hits     hits
	reports  reports
	failures failures
	journal  *journal.Journal
}

// ServeHTTP forwards the request, or answers 404 if there is no route; 503 while
// routes are still to come, see [Router.Expect].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.serve(w, r, nil) }

// Handler returns a handler that forwards requests that have a route and passes
// all others, untouched, to next.
func (p *Proxy) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, next) })
}

// serve is the way of every request: look up, clean, Middleware, forward.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	p.start.Do(p.init)
	match, err := p.match(r)
	switch {
	case errors.Is(err, ErrNoRoute) && next != nil:
		next.ServeHTTP(w, r)
		return
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		err = &Error{Status: http.StatusMethodNotAllowed, Reason: "CONNECT and TRACE are not forwarded"}
	case !headers.IsToken(r.Method): // HTTP/2 lets others pass
		err = &Error{Status: http.StatusBadRequest, Reason: "the method is invalid", Err: fmt.Errorf("it is %.64q", r.Method)}
	case err == nil && loops(r.Header):
		err = &Error{Status: http.StatusLoopDetected, Reason: "the gateway leads to itself"}
	case errors.Is(err, ErrNoRoute) && p.Router.expected.Load() > 0:
		err = &Error{Status: http.StatusServiceUnavailable, Reason: "the routes are not there yet", RetryAfter: time.Second, Err: errExpected}
	}
	e, body := early(w, r)
	if e == nil {
		p.answer(w, r, body, match, err)
		return
	}
	defer e.leave()
	p.answer(e, r, body, match, err)
	e.finish()
}

// answer forwards a request that has a match, unless there is an error.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, body *clientBody, match Match, err error) {
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if p.counts(ActivityRequests) {
		match.leaf.place.use(time.Now())
	}
	r = p.admit(w, r, body, match)
	at := exchangeFrom(r.Context()).seat()
	if err := p.take(at, &p.seats.requests); err != nil {
		p.fail(w, r, err)
		return
	}
	defer p.leave(at, &p.seats.requests)
	p.forward.ServeHTTP(w, r)
}

// Validate returns what of a route this Proxy cannot do, a [*FieldError], or nil:
// a TLSProfile that is not one of TLSProfiles, and Resolve without a Resolver.
// Set it as Router.Validate, before routes are put.
func (p *Proxy) Validate(r *Route) error {
	_, known := p.TLSProfiles[r.TLSProfile]
	switch {
	case r.Resolve && p.Resolver == nil:
		return &FieldError{"resolve", "true", "must be false: this gateway has no Resolver; name the upstreams"}
	case r.TLSProfile == "" || known:
		return nil
	}
	want := "must be left out: this gateway has no TLS profiles"
	if names := slices.Sorted(maps.Keys(p.TLSProfiles)); len(names) > 0 {
		want = fmt.Sprintf("must be one of this gateway's TLS profiles, or left out: %q", names)
	}
	return &FieldError{"tlsProfile", r.TLSProfile, want}
}

func (p *Proxy) init() {
	p.life, p.end = context.WithCancel(context.Background())
	p.journal = journal.New(p.Logger)
	p.seats.init(&p.Limits)
	p.picker.proxy = p
	p.picker.checking.SetLimit(maxChecking)
	p.sticky = p.stickyKey()
	p.dialer.init(p)
	for i, dial := range p.dialer.ways {
		p.dialer.ways[i] = p.sparing(p.rescued(dial))
	}
	p.plain = p.reverseProxy()
	p.forward = http.HandlerFunc(p.forwardRequest)
	if p.Middleware != nil {
		p.forward = p.Middleware(p.forward)
	}
	p.engine.Logger = p.log()
	p.engine.MaxPipes = p.Limits.pipes()
	if p.TunnelClosed != nil {
		p.reports.closed = func(r CloseReport) {
			defer p.rescue("TunnelClosed")
			p.TunnelClosed(r)
		}
	}
	p.reports.dropped = func() {
		if p.hits.note("reports") {
			p.log().Warn("slipswitch: TunnelClosed or BurstDetected does not return, and close reports are dropped")
		}
	}
	p.reports.burst = func(b Burst) {
		p.log().Warn("slipswitch: tunnels have closed together", slog.Any("", b))
		if p.BurstDetected != nil {
			defer p.rescue("BurstDetected")
			p.BurstDetected(b)
		}
	}
}

// log returns what to log to: it never waits, and may be called under locks.
func (p *Proxy) log() *slog.Logger { return p.journal.Logger }

// match looks up a request by the host it names and the path as it was spelt.
func (p *Proxy) match(r *http.Request) (Match, error) {
	path := canon.RawPath(r.URL)
	match, err := p.Router.Lookup(r.Host, path)
	if err != nil {
		return match, err
	}
	if err := canon.CheckQuery(r.URL.RawQuery); err != nil {
		return match, badRequest("query", "", err)
	}
	if p.StrictPath {
		if err := canon.CheckStrict(path); err != nil {
			return match, badRequest("path", path, err)
		}
	}
	if match.leaf.captures() != 0 {
		values, err := match.capture()
		if err != nil {
			return match, noUpstream(err)
		}
		match.captured = &values
	}
	return match, nil
}

// An exchange is what the context of an admitted request carries.
type exchange struct {
	match   Match
	client  Client
	origin  []string    // the client's Origin fields
	upgrade string      // the protocol that is asked for and may be spoken, or ""
	offers  []string    // the client's Upgrade fields
	opaque  bool        // the tunnel's bytes are no WebSocket frames
	trailer http.Header // the client's, complete once the body is read
	script  bool        // it asks for a service worker's script
	untyped bool        // the upstream's response has no Content-Type
	watch   *watch      // over a plain request; nil: nothing is sent yet
	refusal *handshake  // whose answer is an ordinary response; nil: none
	sent    *clientBody // nil: there is none
	body    *timedBody  // below that
}

type exchangeKey struct{}

func exchangeFrom(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// MatchFrom returns the match of the request that has this context; false
// outside of a Proxy.
func MatchFrom(ctx context.Context) (Match, bool) {
	x := exchangeFrom(ctx)
	if x == nil {
		return Match{}, false
	}
	return x.match, true
}

// admit returns the request as Middleware may see it: with its match in the
// context, its path resolved, its headers clean.
func (p *Proxy) admit(w http.ResponseWriter, r *http.Request, body *clientBody, match Match) *http.Request {
	x := &exchange{match: match, origin: r.Header["Origin"], offers: r.Header["Upgrade"], trailer: r.Trailer, sent: body}
	x.upgrade = upgradeProtocol(r, match.options())
	x.opaque = x.upgrade != "websocket" || hasParameter(r.URL.RawQuery, match.options().OpaqueQuery)
	admitted := r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	if match.Path != canon.RawPath(r.URL) {
		resolved := *r.URL
		resolved.RawPath = match.Path
		resolved.Path, _ = url.PathUnescape(match.Path)
		admitted.URL = &resolved
	}
	p.cleanRequest(admitted, x)
	if body != nil {
		x.body = p.timed(w, r, match.options())
		body.ReadCloser = x.body
		admitted.Body = body
	}
	x.script = r.Header["Service-Worker"] != nil // Middleware and the route's rules may remove it
	return admitted
}

// forwardRequest is the innermost handler: what Middleware's next does.
func (p *Proxy) forwardRequest(w http.ResponseWriter, r *http.Request) {
	x := exchangeFrom(r.Context())
	settleTrailers(r)
	switch {
	case x == nil:
		p.fail(w, r, &Error{Status: http.StatusInternalServerError, Reason: "internal error",
			Err: errors.New("by Middleware, next was called with a request of another context")})
	case strings.ContainsAny(r.Method+r.Host, " \r\n") || canon.CheckQuery(r.URL.RawQuery) != nil:
		p.fail(w, r, &Error{Status: http.StatusInternalServerError, Reason: "internal error",
			Err: errors.New("by Middleware, a space or control byte is in the request line or Host")})
	case x.upgrade != "":
		p.upgrade(w, r, x)
	case redirectsToSlash(r, x.match):
		redirectToSlash(w, r, x.match)
	default:
		p.forwardHTTP(w, r, x)
	}
}
