package main

import (
	"net/http"
	"testing"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/embed/embedtest"
)

func TestMain(m *testing.M) { embedtest.TestMain(m, main) }

func TestProgram(t *testing.T) { embedtest.Program(t) }

func TestOutermost(t *testing.T) { embedtest.Check(t, handler) }

func TestInside(t *testing.T) {
	embedtest.Check(t, func(proxy *slipswitch.Proxy) http.Handler {
		e := echo.New()
		e.Use(middleware.RequestLogger(), middleware.Recover())
		e.GET("/hello", func(c echo.Context) error { return c.String(http.StatusOK, "hello") })
		e.RouteNotFound("/*", echo.WrapHandler(proxy))
		return e
	}, "interim responses")
}
