package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/embed/embedtest"
)

func TestMain(m *testing.M) { embedtest.TestMain(m, main) }

func TestProgram(t *testing.T) { embedtest.Program(t) }

func TestOutermost(t *testing.T) { embedtest.Check(t, handler) }

// TestAlone: a server may have nothing but the Proxy.
func TestAlone(t *testing.T) {
	embedtest.Check(t, func(proxy *slipswitch.Proxy) http.Handler { return proxy }, "pages of its own")
}

func TestInside(t *testing.T) {
	embedtest.Check(t, func(proxy *slipswitch.Proxy) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
		mux.Handle("/", proxy)
		return mux
	}, "paths")
}
