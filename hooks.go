package slipswitch

import (
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
)

// Servers recover from what panics in a handler. On a goroutine of the Proxy's
// own, or of a transport's, a hook that panics would end the process, and with it
// all tunnels: what runs there is rescued.

// rescue is deferred around a hook.
func (p *Proxy) rescue(hook string) {
	if v := recover(); v != nil {
		p.panicked(hook, v)
	}
}

// panicked logs what a hook has panicked with, and returns that as an error.
func (p *Proxy) panicked(hook string, v any) error {
	p.log().Error("slipswitch: a hook has panicked", "hook", hook, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	return fmt.Errorf("%s has panicked: %v", hook, v)
}

// A foreignBody is a body that Middleware has put in the place of the client's.
type foreignBody struct {
	io.ReadCloser
	proxy *Proxy
}

func (b foreignBody) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, &Error{Status: http.StatusInternalServerError, Reason: "internal error",
				Err: b.proxy.panicked("the body that Middleware has set", v)}
		}
	}()
	return b.ReadCloser.Read(p)
}
