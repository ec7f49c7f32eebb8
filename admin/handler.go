package admin

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/journal"
	"github.com/slipswitch/slipswitch/store"
	"golang.org/x/sync/semaphore"
)

// A Handler serves the API that the package documentation describes. Router is
// required, and one of Token, Tokens and Open: without them it refuses every
// request. The fields must not be changed after the first request. The methods
// may be called concurrently.
//
// Mount it outermost, or under a prefix that http.StripPrefix removes:
// http.ServeMux merges the slashes of paths before a handler sees them.
type Handler struct {
	Router *slipswitch.Router

	// Proxy is the Proxy whose tunnels are listed and closed. Nil means that there
	// are none.
	Proxy *slipswitch.Proxy

	// Token is the token that requests must have. Empty means that only Tokens are
	// accepted, and if Tokens is nil no request, unless Open is set.
	Token string

	// Tokens, if set, returns further tokens by the names of their holders. An empty
	// token is ignored. It is called for each request, so that tokens can be
	// replaced while the Handler serves, and concurrently. The map that it returned
	// must not be changed.
	Tokens func() map[string]string

	// Open accepts every request that reaches the server, if Token is empty and
	// Tokens is nil.
	Open bool

	// Hosts are the host names, without port, that requests may be for besides
	// localhost and IP addresses. "*" means any. With "*" and Open, any web page that
	// a user of this machine visits can change the routes.
	Hosts []string

	// Owner is the owner of routes that are put by /v1. Nil means the owner without
	// a name.
	Owner *slipswitch.Owner

	// CHPHostRouting makes the first segment of a path in /api/routes the route's
	// host, as configurable-http-proxy's --host-routing does. The path "/" is still
	// for any host.
	CHPHostRouting bool

	// CHPRoute, if set, may modify each route before /api/routes puts it, to set
	// fields that configurable-http-proxy's API does not have. If it changes
	// Upstreams, it can keep the original in the label "target": /api/routes then
	// shows that.
	CHPRoute func(*slipswitch.Route)

	// Stores are the stores of Router's routes. Changes are written to the first.
	// /v1/status shows each that has a method Status. Empty means that changes are
	// made in Router alone.
	Stores []Store

	// Ready, if set, returns nil, or why no traffic should be sent here. In any case
	// a gateway is not ready before each of Stores has been read once, and while
	// Proxy is Draining or Crowded. /v1/status shows the text of the error, /readyz
	// does not.
	Ready func() error

	// Started is when the program started, for /v1/status. Zero means that it is not
	// shown.
	Started time.Time

	// MaxBody is the greatest length of a request with one route, in bytes. Zero
	// means 1 MiB.
	MaxBody int64

	// MaxBatch is the greatest length of a batch, in bytes. Zero means 64 MiB.
	MaxBatch int64

	// Logger gets each change of routes and each closing of tunnels: the token's
	// holder, the address, and the table's version after it. Requests do not wait
	// for it. Nil means slog.Default(). To log nothing, set a logger of
	// slog.DiscardHandler.
	Logger *slog.Logger

	writing struct { // to the store
		once sync.Once
		*semaphore.Weighted
	}
	logging sync.Once
	journal *journal.Journal // made by audit
}

// A Store keeps routes. A *store.Sync is a Store, with all optional methods. The
// methods may be called concurrently. An error of package store is answered with
// a status of its own, a *slipswitch.Error with its Status if that is from 400
// to 599, and any other error with 500.
//
// The optional methods are those of [store.Sync]: ApplyFor, for routes that are
// put with a ttl; WaitAll, for requests with wait=all; Confirm, for /v1/confirm;
// Status, for /v1/status and /readyz.
type Store interface {
	// Apply keeps the changes of an owner, all or none. It returns the revision
	// that has them, as soon as Handler.Router has them, too.
	Apply(ctx context.Context, owner string, changes ...slipswitch.Change) (revision uint64, err error)
}

type leaseStore interface {
	ApplyFor(ctx context.Context, ttl time.Duration, owner string, changes ...slipswitch.Change) (revision uint64, err error)
}

type sharedStore interface {
	WaitAll(ctx context.Context, revision uint64) error
}

type brakedStore interface{ Confirm(context.Context) error }

type statusStore interface{ Status() store.Status }

func (h *Handler) maxBody() int64 {
	if h.MaxBody > 0 {
		return h.MaxBody
	}
	return 1 << 20
}

func (h *Handler) maxBatch() int64 {
	if h.MaxBatch > 0 {
		return h.MaxBatch
	}
	return 64 << 20
}

// An endpoint answers a request, or returns the problem.
type endpoint func(http.ResponseWriter, *http.Request) *problem

// ServeHTTP answers every request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	prepare(w, r)
	if h.probed(w, r) {
		return
	}
	path := canon.RawPath(r.URL)
	holder, wrong := h.admit(r)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		r = withAsker(r, holder)
	}
	switch {
	case wrong != nil:
	case isCHP(path):
		wrong = h.chp(w, r, strings.TrimPrefix(path, chpPrefix))
	default:
		wrong = h.native(path, r.Method)(w, r)
	}
	if wrong == nil {
		return
	}
	if wrong.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="slipswitch"`)
	}
	if strings.HasPrefix(path, "/v1/") {
		wrong.writeJSON(w)
	} else {
		wrong.writeText(w)
	}
}

// prepare sets the common headers of all answers.
func prepare(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// Until the body is read: otherwise the server would read it to its end
		// before it sends an answer that does not depend on it.
		header.Set("Connection", "close")
	}
}

// native returns the endpoint for a path and method.
func (h *Handler) native(path, method string) endpoint {
	var methods map[string]endpoint
	hint := ""
	switch path {
	case "/v1/routes":
		methods = map[string]endpoint{"GET": h.listRoutes}
		hint = ": one route is changed by /v1/route?host=…&path=…, many by POST /v1/batch"
	case "/v1/route":
		methods = map[string]endpoint{"GET": h.getRoute, "PUT": h.putRoute, "DELETE": h.deleteRoute}
	case "/v1/batch":
		methods = map[string]endpoint{"POST": h.batch}
	case "/v1/confirm":
		methods = map[string]endpoint{"POST": h.confirm}
	case "/v1/tunnels":
		methods = map[string]endpoint{"GET": h.listTunnels, "DELETE": h.closeTunnels}
	case "/v1/upstreams":
		methods = map[string]endpoint{"GET": h.listUpstreams}
	case "/v1/closes":
		methods = map[string]endpoint{"GET": h.listCloses}
	case "/v1/status":
		methods = map[string]endpoint{"GET": h.status}
	default:
		return func(http.ResponseWriter, *http.Request) *problem {
			return &problem{Status: http.StatusNotFound, Text: "Not Found: begin at /v1/routes, /v1/tunnels, /v1/closes or /v1/status"}
		}
	}
	if get := methods["GET"]; get != nil {
		methods["HEAD"] = get
	}
	if serve := methods[method]; serve != nil {
		return serve
	}
	return func(w http.ResponseWriter, r *http.Request) *problem {
		return notAllowed(w, methods, hint)
	}
}
