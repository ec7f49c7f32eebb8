// Package serve is the common part of the programs beside it: everything but the
// handler.
package serve

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

// Main parses the command line, and serves handler, which contains proxy, beside
// the REST API that changes proxy's routes. After SIGTERM or an interrupt it
// closes all sockets with the code 1012, spread over seven seconds, and returns.
// It may be called once, by main.
func Main(proxy *slipswitch.Proxy, handler http.Handler) {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` to serve on")
	private := flag.String("admin", "127.0.0.1:8081", "`address` of the REST API, for nobody but its users to reach")
	flag.Parse()
	token := os.Getenv("SLIPSWITCH_ADMIN_TOKEN")
	if token == "" {
		log.Fatal("SLIPSWITCH_ADMIN_TOKEN is empty: set it to what requests to the REST API must name")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rest := &admin.Handler{Router: proxy.Router, Proxy: proxy, Token: token}
	if err := run(ctx, proxy, newServer(*listen, handler), newServer(*private, rest)); err != nil {
		log.Fatal(err)
	}
}

func newServer(addr string, handler http.Handler) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second, // no ReadTimeout or WriteTimeout: they would cut uploads and streams
	}
}

// run serves until ctx ends, and then drains.
func run(ctx context.Context, proxy *slipswitch.Proxy, public, private *http.Server) error {
	failed := make(chan error, 2)
	traffic, err := net.Listen("tcp", public.Addr)
	if err != nil {
		return err
	}
	rest, err := net.Listen("tcp", private.Addr)
	if err != nil {
		return err
	}
	go func() { failed <- public.Serve(proxy.Listen(traffic)) }() // Listen keeps descriptors in reserve
	go func() { failed <- private.Serve(rest) }()
	log.Printf("serving traffic on http://%s", traffic.Addr())
	log.Printf("serving the REST API on http://%s", rest.Addr())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	plain := make(chan error)
	go func() { plain <- public.Shutdown(drain) }() // requests
	err = proxy.Shutdown(drain)                     // sockets
	return errors.Join(err, <-plain, private.Close())
}
