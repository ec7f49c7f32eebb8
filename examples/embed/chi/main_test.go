package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/embed/embedtest"
)

func TestMain(m *testing.M) { embedtest.TestMain(m, main) }

func TestProgram(t *testing.T) { embedtest.Program(t) }

func TestOutermost(t *testing.T) { embedtest.Check(t, handler) }

func TestInside(t *testing.T) {
	embedtest.Check(t, func(proxy *slipswitch.Proxy) http.Handler {
		r := chi.NewRouter()
		r.Use(middleware.Logger, middleware.Recoverer)
		r.Get("/hello", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
		r.Mount("/", proxy)
		return r
	}, "methods")
}
