// Command gin is a gateway with pages of its own by gin.
package main

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/embed/serve"
)

func main() {
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	serve.Main(proxy, handler(proxy))
}

// handler mounts the Proxy outermost. Inside of it, by
// NoRoute(gin.WrapH(proxy)), gin puts its own page into an upstream's empty 404,
// and drops interim responses.
func handler(proxy *slipswitch.Proxy) http.Handler {
	engine := gin.New()
	engine.Use(gin.Logger(), gin.Recovery())
	engine.GET("/hello", func(c *gin.Context) {
		c.String(http.StatusOK, "hello")
	})
	return proxy.Handler(engine)
}
