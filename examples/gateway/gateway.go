package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
	"github.com/slipswitch/slipswitch/examples/gateway/demo"
	"golang.org/x/term"
)

// A gateway is two servers on one router: the public one serves what the table
// says, the admin one changes it.
type gateway struct {
	*settings
	log      *slog.Logger
	router   slipswitch.Router
	proxy    *slipswitch.Proxy
	public   *http.Server
	private  *http.Server // nil: no admin API
	demo     *demo.Demo   // nil without -demo
	stores   *stores      // nil: routes end with the process
	draining atomic.Bool
}

// newGateway opens the stores: until they are there, or ctx ends.
func newGateway(ctx context.Context, s *settings) (*gateway, error) {
	g := &gateway{settings: s, log: s.logger(os.Stderr)}
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
	g.public = &http.Server{
		Handler:           g.lastRequests(g.proxy),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       620 * time.Second, // longer than a load balancer's, or it meets a closed connection
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelInfo),
	}
	if g.secure() {
		c := &certificate{certFile: s.certFile, keyFile: s.keyFile, log: g.log}
		if err := c.load(); err != nil {
			return nil, err
		}
		g.public.TLSConfig = &tls.Config{GetCertificate: c.get}
	}
	if len(s.stores) > 0 {
		var err error
		if g.stores, err = openStores(ctx, s, &g.router, g.log); err != nil {
			return nil, err
		}
		g.public.Handler = g.stores.handler(g.public.Handler)
	}
	if s.admin != "" {
		handler, err := g.adminHandler()
		if err != nil {
			return nil, err
		}
		g.private = &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       time.Minute,
			ErrorLog:          g.public.ErrorLog,
		}
	}
	return g, nil
}

// run serves until a signal comes and all is drained, or a second one comes.
func (g *gateway) run(signals <-chan os.Signal) error {
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
	failed := make(chan error, 2)
	listener, err := net.Listen("tcp", g.listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if g.private != nil {
		private, err := net.Listen("tcp", g.admin)
		if err != nil {
			return fmt.Errorf("-admin: %w", err)
		}
		if addr, ok := private.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
			g.log.Warn("the admin API can be reached from other machines", "address", addr.String())
		}
		go func() { failed <- g.private.Serve(private) }()
		g.log.Info("serving the admin API", "address", private.Addr().String())
	}
	if g.demo != nil {
		if err := g.demo.Start(); err != nil {
			return err
		}
		g.demo.Welcome(os.Stdout, g.url(listener))
	}
	go func() { failed <- g.servePublic(g.proxy.Listen(listener)) }()
	g.log.Info("serving", "address", listener.Addr().String())

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

// drain ends all without haste. While it is still reachable, the gateway says
// that it is not ready and lets each connection go with its next answer. Then
// nothing new is taken, tunnels are closed, and what is still going on when
// the window is over is cut.
func (g *gateway) drain(delay time.Duration) {
	g.draining.Store(true)
	g.log.Info("draining", "delay", delay.String(), "window", g.drainWindow.String())
	time.Sleep(delay)

	window, cancel := context.WithTimeout(context.Background(), g.drainWindow)
	defer cancel()
	requests := release(window, g.public) // who reconnects must not come back here
	if g.stores != nil {                  // a successor may open them, and answer where one writes to them
		if g.private != nil {
			release(window, g.private)
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
	if g.private != nil {
		g.private.Close()
	}
	g.log.Info("drained")
}

// release closes a server's listener before it returns. Then the requests that
// it still has may end, within the context; the channel says how they did.
func release(ctx context.Context, server *http.Server) <-chan error {
	ended, released := make(chan error, 1), make(chan struct{})
	server.RegisterOnShutdown(func() { close(released) })
	go func() { ended <- server.Shutdown(ctx) }()
	<-released
	return ended
}

// lastRequests makes each request the last one of its connection once the
// gateway drains.
func (g *gateway) lastRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// tunnelClosed is told of each tunnel's end.
func (g *gateway) tunnelClosed(r slipswitch.CloseReport) {
	g.log.Info("tunnel closed", slog.Any("", r))
	if g.demo != nil {
		g.demo.TunnelClosed(r)
	}
}

// adminHandler returns the API, with a token in front of it always.
func (g *gateway) adminHandler() (http.Handler, error) {
	token, file, err := g.adminToken()
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	if file != "" {
		g.log.Info("the admin token is in a file", "file", file)
		if term.IsTerminal(int(os.Stdout.Fd())) {
			fmt.Printf("admin token: %s\n", token) // never into a log that others read
		}
	}
	handler := &admin.Handler{Router: &g.router, Proxy: g.proxy, Token: token, Ready: g.ready, Started: time.Now()}
	if g.stores != nil {
		handler.Stores = g.stores.admin()
	}
	return handler, nil
}

// ready returns why no traffic should be sent here.
func (g *gateway) ready() error {
	if g.draining.Load() {
		return errors.New("draining")
	}
	return nil
}

func (g *gateway) secure() bool { return g.certFile != "" }

// url returns how this machine reaches the gateway.
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
