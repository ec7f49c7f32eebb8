// Command nethttp is a gateway of net/http alone: what has a route is
// forwarded, all else is the ServeMux's.
package main

import (
	"io"
	"net/http"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/embed/serve"
)

func main() {
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	serve.Main(proxy, handler(proxy))
}

// handler mounts the Proxy outermost. Inside of it, a ServeMux would answer
// paths with // by a redirect.
func handler(proxy *slipswitch.Proxy) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
	})
	return proxy.Handler(mux)
}
