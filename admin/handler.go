package admin

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A Handler serves the API that the package documentation describes. Only
// Router is required, and Token or Open: without either every request is
// refused. The fields must not be changed once it serves; its methods may be
// called concurrently.
//
// Mount it outermost or under a fixed prefix cut off by http.StripPrefix:
// http.ServeMux merges the slashes of paths before a handler sees them.
type Handler struct {
	Router *slipswitch.Router

	// Proxy is whose tunnels are listed. Nil: there are none.
	Proxy *slipswitch.Proxy

	// Token is what every request must name. Empty: all requests are refused,
	// unless Open is set.
	Token string

	// Open lets everybody who reaches the server do everything, if Token is
	// empty.
	Open bool

	// Hosts are the names under which the API may be asked, besides localhost
	// and IP addresses, without port; "*" is any name. With "*" and Open each
	// web page that a user of this machine visits can change the routes.
	Hosts []string

	// Owner is whose the routes of /v1 are. Nil: the owner without a name.
	Owner *slipswitch.Owner

	// CHPHostRouting makes the first segment of a path in /api/routes the host
	// of the route, as configurable-http-proxy's --host-routing does; the path
	// "/" is still that of any host.
	CHPHostRouting bool

	// CHPRoute, if set, may modify each route that is put by /api/routes before
	// it is put: to set what configurable-http-proxy's API has no field for. If
	// it changes Upstreams it can leave what they were in the label "target",
	// which is what /api/routes shows then.
	CHPRoute func(*slipswitch.Route)

	// Write, if set, keeps the changes of an owner in a store, all or none, and
	// returns once Router has them: store.Sync.Apply does. Its errors are those
	// of Router.Update, or a *slipswitch.Error with the status to answer with.
	// It may be called concurrently. Nil: changes go to Router alone.
	Write func(ctx context.Context, owner string, changes ...slipswitch.Change) error

	// WriteFor, if set, is Write of routes that last for a time only, unless they
	// are written again: store.Sync.ApplyFor does. Nil: that cannot be.
	WriteFor func(ctx context.Context, ttl time.Duration, owner string, changes ...slipswitch.Change) error

	// WaitAll, if set, waits until all gateways that share the store have what
	// Write has written: for requests with wait=all. Its errors are as Write's.
	// Nil: there is only this gateway.
	WaitAll func(ctx context.Context) error

	// Confirm, if set, makes the deletions that the brake of a store holds back,
	// on all gateways that share it: store.Sync.Confirm does. Its errors are as
	// Write's. Nil: nothing is ever held back.
	Confirm func(ctx context.Context) error

	// Stores, if set, returns what /v1/status tells as "stores": how each Sync
	// stands, for one.
	Stores func() any

	// Ready, if set, returns why no traffic should be sent here, or nil.
	// Whatever it says, a Proxy that drains, or is Crowded, is not ready. The
	// error's text is shown by /v1/status, not by /readyz.
	Ready func() error

	// Started is when the program began, for /v1/status. Zero: it is not told.
	Started time.Time

	// MaxBody is how many bytes the body of one route may have. Zero: 1 MiB.
	MaxBody int64

	// MaxBatch is how many bytes the body of a batch may have. Zero: 64 MiB.
	MaxBatch int64

	writing sync.RWMutex // held by requests that write to a store
}

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

// An endpoint answers a request, or returns what is wrong with it.
type endpoint func(http.ResponseWriter, *http.Request) *problem

// ServeHTTP answers every request, whatever it is.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// Until the body is read: else the server would wait for it to end
		// before it sends an answer that does not depend on it.
		header.Set("Connection", "close")
	}
	path := rawPath(r.URL)
	switch path {
	case "/livez":
		h.livez(w, r)
		return
	case "/readyz":
		h.readyz(w, r)
		return
	}
	rest, chp := strings.CutPrefix(path, "/api/routes")
	chp = chp && (rest == "" || rest[0] == '/')
	wrong := h.refuse(r)
	switch {
	case wrong != nil:
	case chp:
		wrong = h.chp(w, r, rest)
	default:
		wrong = h.native(path, r.Method)(w, r)
	}
	if wrong == nil {
		return
	}
	if strings.HasPrefix(path, "/v1/") {
		wrong.writeJSON(w)
	} else {
		wrong.writeText(w)
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
			return &problem{Status: http.StatusNotFound, Text: "Not Found"}
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

// rawPath returns a URL's path as the client spelt it, unless a handler in
// front has changed it. URL.EscapedPath would respell, and so lose the
// difference between / and %2F, where the spelling is not the usual one.
func rawPath(u *url.URL) string {
	if u.RawPath != "" {
		if path, err := url.PathUnescape(u.RawPath); err == nil && path == u.Path {
			return u.RawPath
		}
	}
	return u.EscapedPath()
}
