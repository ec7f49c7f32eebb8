package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

// apiPath is where the REST API is.
const apiPath = "/api/routes"

// shutdownWindow is the time that sockets and requests have to end.
const shutdownWindow = 5 * time.Second

// A standIn stands in for configurable-http-proxy: servers on one router.
type standIn struct {
	*options
	log      *slog.Logger
	router   slipswitch.Router
	proxy    *slipswitch.Proxy
	storage  *storage // nil: routes end with the process
	counts   *counts
	servers  []*server
	measured bool // the metrics are served
}

func newStandIn(o *options) (*standIn, error) {
	s := &standIn{options: o, counts: newCounts(), log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: o.logLevel}))}
	log.SetFlags(0) // net/http logs unsolicited responses there
	log.SetOutput(slog.NewLogLogger(s.log.Handler(), slog.LevelDebug).Writer())
	if err := o.client(); err != nil {
		return nil, err
	}
	public, err := o.server(&o.ssl, "")
	if err != nil {
		return nil, err
	}
	private, err := o.server(&o.apiSSL, "api-")
	if err != nil {
		return nil, err
	}
	s.proxy = &slipswitch.Proxy{
		Router:        &s.router,
		Middleware:    s.middleware,
		ActivityKinds: o.counted(),
		TLSProfiles:   map[string]*tls.Config{"": o.clientSSL.config},
		ErrorHandler:  newErrorPages(o, s.log).handle,
		TunnelClosed:  func(r slipswitch.CloseReport) { s.log.Info("socket closed", slog.Any("", r)) },
		Logger:        s.log,
	}
	s.router.Validate = s.proxy.Validate
	if o.storage != "" {
		if s.storage, err = openStorage(o.storage, &s.router, o.route, s.log); err != nil {
			return nil, err
		}
	}
	if o.defaultTarget != "" {
		if err := s.putDefault(); err != nil {
			s.close()
			return nil, err
		}
	}
	s.add("proxy", o.public, o.bound(s), public)
	s.add("API", o.api, s.watched(s.restAPI()), private)
	if o.metrics.port != "" || o.metrics.socket != "" {
		s.measured = true
		s.add("metrics", o.metrics, s.counts.handler(), nil)
	}
	if o.redirectPort != "" {
		s.add("redirection", address{ip: o.public.ip, port: o.redirectPort}, http.HandlerFunc(o.redirect), nil)
	}
	return s, nil
}

// add adds a server.
func (s *standIn) add(name string, at address, handler http.Handler, secure *tls.Config) {
	each := &server{name: name, address: at}
	each.Handler, each.TLSConfig = handler, secure
	each.Protocols = new(http.Protocols) // HTTP/2 requires suites that --ssl-ciphers may exclude
	each.Protocols.SetHTTP1(true)
	each.ReadHeaderTimeout = time.Minute
	each.MaxHeaderBytes = 64 << 10 // in memory short fields take fifty times their size
	each.IdleTimeout = cmp.Or(s.keepAliveTimeout, 5*time.Second)
	each.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	s.servers = append(s.servers, each)
}

// counted is the traffic that updates last_activity, besides the start of a
// request: its body, and a WebSocket's bytes from the client. Without --activity
// client, downloads in progress and messages that upstreams send unasked count,
// too.
func (o *options) counted() slipswitch.ActivityKinds {
	counted := slipswitch.ActivityUploads | slipswitch.ActivityClientBytes
	if o.activity == "all" {
		counted |= slipswitch.ActivityDownloads | slipswitch.ActivityUpstreamMessages
	}
	return counted
}

// restAPI returns the handler of the REST API.
func (s *standIn) restAPI() *admin.Handler {
	h := &admin.Handler{Router: &s.router, Token: s.token, Open: s.token == "", CHPHostRouting: s.hostRouting,
		Logger: slog.New(slog.DiscardHandler)} // watched logs each request
	if s.token != "" || !s.api.local() || s.api.socket != "" {
		h.Hosts = []string{"*"} // else a page in a local browser could reach it by a name of its own
	}
	if s.storage != nil {
		h.Stores = []admin.Store{s.storage.sync}
	} else {
		h.CHPRoute = s.route
	}
	return h
}

// watched answers 404 for all paths but the REST API's. It counts and logs each
// answer, with the client and the version that the table then has.
func (s *standIn) watched(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &answer{ResponseWriter: w}
		if path := r.URL.Path; path == apiPath || strings.HasPrefix(path, apiPath+"/") {
			api.ServeHTTP(answer, r)
		} else {
			answer.WriteHeader(http.StatusNotFound)
			io.WriteString(answer, http.StatusText(http.StatusNotFound))
		}
		s.counts.asked(r, answer.status)
		level := slog.LevelInfo
		if answer.status >= 400 {
			level = slog.LevelWarn
		}
		s.log.Log(r.Context(), level, "API", "status", answer.status, "method", r.Method, "path", r.URL.Path, "client", r.RemoteAddr, "version", s.router.Table().Version())
	})
}

// putDefault puts the route for --default-target.
func (s *standIn) putDefault() error {
	target, err := parseTarget(s.defaultTarget)
	if err != nil {
		return fmt.Errorf("--default-target %q: %w", s.defaultTarget, err)
	}
	upstream := s.defaultTarget
	if target.Scheme == "unix" {
		upstream = "unix:" + target.Host
	}
	route := slipswitch.Route{Path: "/", Upstreams: slipswitch.To(upstream)}
	if s.storage != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err = s.storage.sync.Apply(ctx, "chp", slipswitch.Change{Put: &route})
	} else {
		s.route(&route)
		_, err = s.router.Update(func(tx *slipswitch.Txn) error {
			tx.As(&slipswitch.Owner{Name: "chp"}).Put(route)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("--default-target %q: %w", s.defaultTarget, err)
	}
	return nil
}
