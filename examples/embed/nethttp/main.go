// Command nethttp is a gateway of net/http alone. Requests with a route are
// forwarded; others go to the ServeMux.
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

// handler mounts the Proxy outermost. Mounted inside, it would lose paths with
// //, which a ServeMux redirects.
func handler(proxy *slipswitch.Proxy) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
	})
	return proxy.Handler(mux)
}
