// Command echo is a gateway with its own pages by echo.
package main

import (
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/embed/serve"
)

func main() {
	proxy := &slipswitch.Proxy{Router: new(slipswitch.Router)}
	serve.Main(proxy, handler(proxy))
}

// handler mounts the Proxy outermost. Mounted inside echo, by RouteNotFound("/*",
// echo.WrapHandler(proxy)), an interim response would be taken for the final one.
func handler(proxy *slipswitch.Proxy) http.Handler {
	e := echo.New()
	e.Use(middleware.RequestLogger(), middleware.Recover())
	e.GET("/hello", func(c echo.Context) error {
		return c.String(http.StatusOK, "hello")
	})
	return proxy.Handler(e)
}
