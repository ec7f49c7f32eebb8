// Command chi is a gateway with its own pages by chi.
package main

import (
	"io"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/embed/serve"
)

func main() {
	proxy := &slipswitch.Proxy{
		Router:     new(slipswitch.Router),
		Middleware: chi.Chain(middleware.RequestID).Handler, // for forwarded requests; any middleware for net/http
	}
	serve.Main(proxy, handler(proxy))
}

// handler mounts the Proxy outermost. Mounted inside chi, by Mount("/", proxy) or
// NotFound, it would get only the methods that chi knows.
func handler(proxy *slipswitch.Proxy) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Logger, middleware.Recoverer)
	r.Get("/hello", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
	})
	return proxy.Handler(r)
}
