package main

import (
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/embed/embedtest"
)

func TestMain(m *testing.M) { embedtest.TestMain(m, main) }

func TestProgram(t *testing.T) { embedtest.Program(t) }

func TestOutermost(t *testing.T) { embedtest.Check(t, handler) }

func TestInside(t *testing.T) {
	embedtest.Check(t, func(proxy *slipswitch.Proxy) http.Handler {
		engine := gin.New()
		engine.Use(gin.Logger(), gin.Recovery())
		engine.GET("/hello", func(c *gin.Context) { c.String(http.StatusOK, "hello") })
		engine.NoRoute(gin.WrapH(proxy))
		return engine
	}, "empty answers", "interim responses")
}
