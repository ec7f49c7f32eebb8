package caddyslipswitch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/slipswitch/slipswitch"
)

func init() { caddy.RegisterModule(new(Handler)) }

// A Handler forwards requests with a route, and passes others to the next
// handler.
type Handler struct {
	// Name separates independent handlers. Handlers of one name share routes,
	// sockets and REST. Empty means "default".
	Name string `json:"name,omitempty"`

	// Routes are the routes of the configuration.
	Routes []slipswitch.Route `json:"routes,omitempty"`

	// TrustedProxies are the addresses or ranges of peers whose Forwarded and
	// X-Forwarded headers are trusted. Empty means that none are.
	TrustedProxies []string `json:"trusted_proxies,omitempty"`

	// Data is the file that keeps the routes put by REST. A reload cannot change
	// it. Empty means that they end with the process.
	Data string `json:"data,omitempty"`

	shared *shared
	proxy  *slipswitch.Proxy
}

// CaddyModule implements caddy.Module.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.slipswitch", New: func() caddy.Module { return new(Handler) }}
}

var validName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Provision joins the shared parts of this name. It does not change them yet,
// since the configuration may still be refused.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.Name == "" {
		h.Name = "default"
	}
	if !validName.MatchString(h.Name) {
		return fmt.Errorf("name %q must be letters, digits, - and _", h.Name)
	}
	trusted, err := prefixes(h.TrustedProxies)
	if err != nil {
		return err
	}
	app, err := ctx.App("slipswitch")
	if err != nil {
		return err
	}
	return app.(*App).join(h, trusted)
}

// prefixes parses addresses and ranges, and returns them in a fixed order.
func prefixes(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("trusted_proxies %q must be an address, or a range such as 10.0.0.0/8", text)
		}
		all = append(all, prefix.Masked())
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all), nil
}

// ServeHTTP returns an error of forwarding, for handle_errors.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !h.shared.started.Load() {
		w.Header().Set("Retry-After", "1")
		return caddyhttp.Error(http.StatusServiceUnavailable, errors.New("slipswitch is starting"))
	}
	var failed error
	ctx := context.WithValue(r.Context(), failure{}, &failed)
	h.proxy.Handler(http.HandlerFunc(func(_ http.ResponseWriter, _ *http.Request) {
		failed = next.ServeHTTP(w, r)
	})).ServeHTTP(direct{w}, r.WithContext(ctx))
	return failed
}

// failure is the context key for the error of a request.
type failure struct{}

// fail is the ErrorHandler of the Proxy.
func fail(_ http.ResponseWriter, r *http.Request, err *slipswitch.Error) {
	*r.Context().Value(failure{}).(*error) = caddyhttp.Error(err.Status, err)
}

// A direct writer hijacks the connection itself. A writer that Caddy logs by
// wraps the connection to count bytes. The log reads the count, which is a data
// race, and a wrapped connection costs goroutines and buffers.
type direct struct{ http.ResponseWriter }

func (d direct) Unwrap() http.ResponseWriter { return d.ResponseWriter }

func (d direct) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w := d.ResponseWriter
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return http.NewResponseController(w).Hijack()
		}
		w = wrapper.Unwrap()
	}
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
