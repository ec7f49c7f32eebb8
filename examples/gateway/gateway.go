package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
	"github.com/slipswitch/slipswitch/examples/gateway/demo"
	"golang.org/x/term"
)

// A gateway is a set of servers on one router: the public one serves the routes,
// the admin one changes them, a third one only answers probes.
type gateway struct {
	*settings
	log      *slog.Logger
	router   slipswitch.Router
	proxy    *slipswitch.Proxy
	public   *http.Server
	private  []*service // the others
	demo     *demo.Demo // nil without -demo
	stores   *stores    // nil: routes end with the process
	draining atomic.Bool

	certificate *certificate // nil: no TLS
	tokens      *tokens      // nil: no admin API
}

// newGateway opens the stores, and waits for them until ctx ends.
func newGateway(ctx context.Context, s *settings) (*gateway, error) {
	g := &gateway{settings: s, log: s.logger(os.Stderr)}
	log.SetFlags(0) // net/http logs unsolicited responses there
	log.SetOutput(slog.NewLogLogger(g.log.Handler(), slog.LevelDebug).Writer())
	g.proxy = &slipswitch.Proxy{
		Router:         &g.router,
		TrustedProxies: s.trusted,
		Limits:         s.limits,
		TunnelClosed:   g.tunnelClosed,
		Logger:         g.log,
	}
	if s.demo {
		g.demo = &demo.Demo{Router: &g.router, Proxy: g.proxy, Log: g.log}
		g.proxy.TunnelValue = g.demo.TunnelValue
		g.proxy.Resolver = &slipswitch.Resolver{Resolve: g.demo.Resolve}
	}
	g.router.Validate = g.proxy.Validate
	g.public = &http.Server{
		Handler:           g.lastRequests(g.proxy),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       620 * time.Second,             // longer than a load balancer's, which would otherwise use a closed connection
		MaxHeaderBytes:    cmp.Or(s.headerBytes, 64<<10), // in memory short fields take fifty times their size
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: cmp.Or(s.streams, 100)},
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelInfo),
	}
	if g.secure() {
		g.certificate = &certificate{certFile: s.certFile, keyFile: s.keyFile, log: g.log}
		if err := g.certificate.load(); err != nil {
			return nil, err
		}
		g.public.TLSConfig = &tls.Config{GetCertificate: g.certificate.get}
	}
	if len(s.stores) > 0 {
		var err error
		if g.stores, err = openStores(ctx, s, &g.router, g.log); err != nil {
			return nil, err
		}
		g.public.Handler = g.stores.handler(g.public.Handler)
	}
	return g, g.addServices()
}

// addServices adds the admin API, which always requires a token, and the probes.
func (g *gateway) addServices() error {
	api := g.api()
	if g.admin != "" {
		var err error
		if g.tokens, err = g.openTokens(); err != nil {
			return fmt.Errorf("admin token: %w", err)
		}
		g.tellTokens()
		api.Tokens = g.tokens.all
		g.private = append(g.private, newService("the admin API", "admin", g.admin, api, g.log))
	}
	if g.health != "" {
		g.private = append(g.private, newService("probes", "health", g.health, api.Probes(), g.log))
	}
	return nil
}

// run serves until a signal arrives and everything is drained, or a second one
// arrives. SIGHUP does not end it.
func (g *gateway) run(signals, hangups <-chan os.Signal) error {
	if g.cpuProfile != "" {
		file, err := os.Create(g.cpuProfile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	failed := make(chan error, 1+len(g.private))
	listener, err := net.Listen("tcp", g.listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	for _, each := range g.private {
		if err := each.start(g.log, failed); err != nil {
			return err
		}
	}
	if g.demo != nil {
		if err := g.demo.Start(); err != nil {
			return err
		}
		g.demo.Welcome(os.Stdout, g.url(listener))
	}
	go func() { failed <- g.servePublic(g.proxy.Listen(listener)) }()
	g.log.Info("serving", "address", listener.Addr().String())
	go g.reloads(hangups)

	select {
	case err := <-failed:
		return err
	case signal := <-signals:
		delay := g.drainDelay
		if signal == os.Interrupt {
			delay = 0
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			g.drain(delay)
		}()
		select {
		case <-drained:
			return nil
		case <-signals:
			return errors.New("ended at once by a second signal")
		}
	}
}

func (g *gateway) servePublic(listener net.Listener) error {
	if g.secure() {
		return g.public.ServeTLS(listener, "", "")
	}
	return g.public.Serve(listener)
}

// drain ends the gateway gracefully. During the delay the gateway is still
// reachable, reports that it is not ready, and closes each connection with its
// next answer. Then it accepts no more connections and closes the tunnels. At the
// end of the window it cuts everything that is left.
func (g *gateway) drain(delay time.Duration) {
	g.draining.Store(true)
	g.log.Info("draining", "delay", delay.String(), "window", g.drainWindow.String())
	time.Sleep(delay)

	window, cancel := context.WithTimeout(context.Background(), g.drainWindow)
	defer cancel()
	requests := release(window, g.public) // clients that reconnect must not come back here
	if g.stores != nil {                  // a successor may open them, and answer writes
		for _, each := range g.private {
			release(window, &each.Server)
		}
		g.stores.close()
		g.log.Info("the stores are released")
	}
	if err := g.proxy.Shutdown(window); err != nil {
		g.log.Warn("tunnels were cut", "error", err)
	}
	if err := <-requests; err != nil {
		g.log.Warn("requests were cut", "error", err)
		g.public.Close()
	}
	if g.demo != nil {
		g.demo.Close()
	}
	for _, each := range g.private {
		each.Close()
	}
	g.log.Info("drained")
}

// release closes a server's listener before it returns. The requests in progress
// may then end, until the context does; the channel gets the result.
func release(ctx context.Context, server *http.Server) <-chan error {
	ended, released := make(chan error, 1), make(chan struct{})
	server.RegisterOnShutdown(func() { close(released) })
	go func() { ended <- server.Shutdown(ctx) }()
	<-released
	return ended
}

// lastRequests makes each request the last one on its connection once the gateway
// drains.
func (g *gateway) lastRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// tunnelClosed logs the end of each tunnel.
func (g *gateway) tunnelClosed(r slipswitch.CloseReport) {
	g.log.Info("tunnel closed", slog.Any("", r))
	if g.demo != nil {
		g.demo.TunnelClosed(r)
	}
}

// api returns the admin API, without tokens yet.
func (g *gateway) api() *admin.Handler {
	api := &admin.Handler{Router: &g.router, Proxy: g.proxy, Hosts: g.adminHosts, Ready: g.ready, Started: time.Now(), Logger: g.log}
	if _, ok := socketPath(g.admin); ok {
		api.Hosts = []string{"*"} // no web page can reach a Unix socket
	}
	if g.stores != nil {
		api.Stores = g.stores.admin()
	}
	return api
}

// tellTokens logs where the tokens are, and prints a single one to a terminal.
func (g *gateway) tellTokens() {
	if g.tokens.file == "" {
		return
	}
	g.logTokens("the admin token is in a file")
	if only := g.tokens.all()[soleHolder]; only != "" && term.IsTerminal(int(os.Stdout.Fd())) {
		fmt.Printf("admin token: %s\n", only) // never to a log, which others may read
	}
}

func (g *gateway) logTokens(message string) {
	holders := slices.Sorted(maps.Keys(g.tokens.all()))
	g.log.Info(message, "file", g.tokens.file, "holders", holders, "new", g.tokens.made)
	if g.tokens.readable {
		g.log.Warn("all users of this machine can read the admin token: chmod 600", "file", g.tokens.file)
	}
}

// ready returns why no traffic should be sent to the gateway, or nil.
func (g *gateway) ready() error {
	if g.draining.Load() {
		return errors.New("draining")
	}
	return nil
}

func (g *gateway) secure() bool { return g.certFile != "" }

// url returns the URL of the gateway as seen from this machine.
func (g *gateway) url(l net.Listener) string {
	scheme, address := "http", l.Addr().String()
	if g.secure() {
		scheme = "https"
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		address = fmt.Sprintf("localhost:%d", tcp.Port)
	}
	return scheme + "://" + address
}
