// Command gin is a gateway with its own pages by gin.
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

// handler mounts the Proxy outermost. Mounted inside gin, by
// NoRoute(gin.WrapH(proxy)), an upstream's empty 404 would get gin's page, and
// interim responses would be dropped.
func handler(proxy *slipswitch.Proxy) http.Handler {
	engine := gin.New()
	engine.Use(gin.Logger(), gin.Recovery())
	engine.GET("/hello", func(c *gin.Context) {
		c.String(http.StatusOK, "hello")
	})
	return proxy.Handler(engine)
}
