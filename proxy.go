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

	"github.com/slipswitch/slipswitch/internal/balance"
	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/dial"
	"github.com/slipswitch/slipswitch/internal/headers"
	"github.com/slipswitch/slipswitch/internal/health"
	"github.com/slipswitch/slipswitch/internal/journal"
	"github.com/slipswitch/slipswitch/internal/splice"
	"golang.org/x/sync/errgroup"
)

// A Proxy is an http.Handler that forwards each request to an upstream of the
// route that the Router's table has for it at that moment. Only Router is
// required. The fields must not be changed after the first request. The methods
// may be called concurrently.
//
// Mount it outermost: http.ServeMux and most frameworks merge slashes and
// escape paths anew before a handler sees them.
type Proxy struct {
	Router *Router

	// Middleware, if set, wraps the forwarding of each request that has a route:
	// next forwards. It sees the match ([MatchFrom]), the resolved path, and a
	// header without the fields that a client must not set. Fields that it adds to
	// the request's header reach the upstream, those that it adds to the
	// response's reach the client, also for upgrades.
	//
	// If it changes the method, the Host, the query or the body, the change is
	// forwarded. The path is always that of the match.
	//
	// An upgraded request ends for it with the 101: next returns, and the
	// request's context is cancelled, while the tunnel lives on.
	Middleware func(next http.Handler) http.Handler

	// TunnelValue, if set, is called for each upgrade that is about to open a
	// tunnel, with the request and the context that Middleware passed to next. Its
	// result is [Tunnel.Value]: what a program needs to know later of the request,
	// such as the user, since the request itself is not kept.
	TunnelValue func(*http.Request) any

	// Reauthorize, if set, is called again and again for each open tunnel, to say
	// whether it may stay. After an error the tunnel is closed with the code 1008
	// and [WhyLoginExpired], and also after a panic, or without an answer within
	// 10 s, when the context ends. To keep tunnels open while the auth service is
	// down, return nil when it cannot be reached. Reauthorize is called
	// concurrently, but not twice at a time for one tunnel.
	Reauthorize func(ctx context.Context, t *Tunnel) error

	// ReauthorizeEvery is the time between two calls of Reauthorize for a tunnel,
	// give or take a twentieth. The first comes after half of it at the earliest.
	// Zero means 5 min.
	ReauthorizeEvery time.Duration

	// TunnelClosed, if set, is called with the report of each tunnel that has
	// ended, in the order of their ends, one at a time. If it is slow, reports are
	// late, but traffic is not. At most 100,000 reports and bursts wait; those
	// after them are dropped, which LimitsHit counts as "reports" and the log
	// tells. CloseReports has the last reports in any case.
	TunnelClosed func(CloseReport)

	// BurstDetected, if set, is called with each burst of closes, on the same
	// goroutine as TunnelClosed. The burst is logged in any case.
	BurstDetected func(Burst)

	// TrustedProxies are the peers that are believed about the client: by
	// X-Forwarded-For, -Proto, -Host and -Port or, if none of the first three is
	// there, by Forwarded (RFC 7239). A trusted proxy must set these fields, delete
	// them, or append to them: it must not pass on those of its client. Nil means
	// that no peer is believed: these fields, and others from which servers read
	// the client's address, scheme or host, are then dropped and set anew.
	TrustedProxies []netip.Prefix

	// TrustUnix makes peers on Unix sockets, which have no address, trusted as
	// TrustedProxies are. The Proxy knows them by http.LocalAddrContextKey, which
	// http.Server sets. If false, all clients on Unix sockets are one client to
	// Limits.
	TrustUnix bool

	// ActivityKinds are the kinds of traffic that count as activity of a route.
	// Zero means all but ActivityClientBytes and ActivityUpstreamBytes.
	ActivityKinds ActivityKinds

	// Limits bound the requests and tunnels, and the resources that they use.
	Limits Limits

	// StrictPath refuses paths with an escaped slash or backslash, or with a
	// semicolon: some servers split paths there.
	StrictPath bool

	// TemplateAddresses are the address ranges that template upstreams may resolve
	// to, typically the workspace network. The address itself is checked, each time
	// a connection is made. Nil means all but loopback, link-local, multicast and
	// unspecified addresses, those of cloud metadata services, and this machine's
	// own.
	TemplateAddresses []netip.Prefix

	// Resolver finds the upstreams of routes with Resolve set. Nil means that
	// requests to them are answered with 502; see Validate.
	Resolver *Resolver

	// StickyKey is the key of the hashes in sticky cookies. Gateways that serve the
	// same clients need the same key. Empty means a random one.
	StickyKey []byte

	// DialContext connects to upstreams. Its context ends with the route's
	// DialTimeout. It must set TCP keepalive itself. TemplateAddresses are compared
	// with the RemoteAddr of the connection, as nothing is known before. Nil means
	// that of a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// TLSProfiles are the configurations that routes name as TLSProfile; the one
	// named "" is that of routes that name none. The Proxy sets the protocols that
	// are offered by ALPN. A request to a route that names a missing profile is
	// answered with 502; see Validate.
	TLSProfiles map[string]*tls.Config

	// ErrorHandler answers a request that got no response from an upstream. Before
	// it is called, w has Proxy-Status, Retry-After and the like. It may write
	// nothing; a handler wrapped around the Proxy then answers. Nil means an answer
	// in JSON, HTML or text, whichever the client prefers.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err *Error)

	// Logger gets what an operator must act on, from a goroutine of its own: if it
	// hangs, it holds up nothing else. At most 1,000 records wait for it; those
	// after them are dropped, and their number is logged. Nil means
	// slog.Default(). To log nothing, set a logger of slog.DiscardHandler.
	Logger *slog.Logger

	start      sync.Once
	forward    http.Handler // Middleware around forwardRequest
	dialer     dial.Dialer
	transports transports
	balancer   balance.Balancer
	checker    *health.Checker[question]
	sticky     []byte
	life       context.Context // until Close, or no request is in progress after Shutdown
	end        context.CancelFunc
	engine     splice.Engine
	tunnels    registry
	seats      seats
	hits       hits
	reports    reports
	dropping   errgroup.Group // what clients send that are answered already
	failures   failures
	journal    *journal.Journal
}

// ServeHTTP forwards the request. Without a route it answers 404, or 503 while
// routes are expected: see [Router.Expect].
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.serve(w, r, nil) }

// Handler returns a handler that forwards requests that have a route, and calls
// next for all others, which it leaves as they are.
func (p *Proxy) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, next) })
}

// serve takes every request: look up, clean, Middleware, forward.
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
	e, body := p.early(w, r)
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

// Validate returns a [*FieldError] for a route that this Proxy cannot serve: its
// TLSProfile is not one of TLSProfiles, or Resolve is set and there is no
// Resolver. Set it as Router.Validate, before routes are put.
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
	p.checker = health.New(p.life, p.ask, p.checked)
	p.dropping.SetLimit(dropLimit())
	p.sticky = p.stickyKey()
	p.initDialer()
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

// log returns the logger, which never waits and may be used under locks.
func (p *Proxy) log() *slog.Logger { return p.journal.Logger }

// match looks up a request by its host and by its path as it was spelt.
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
	sent    *clientBody // nil: there is none
	body    *timedBody  // below that
}

type exchangeKey struct{}

func exchangeFrom(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// MatchFrom returns the match of the request that has this context, or false if
// no Proxy serves it.
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
