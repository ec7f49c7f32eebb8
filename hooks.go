package slipswitch

import (
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
)

// http.Server recovers from a panic in a handler. A hook that panics on a goroutine
// of the Proxy or of a transport would end the process, and with it all tunnels. So
// the Proxy recovers from the panics of hooks that it calls there.

// rescue, deferred, recovers from the panic of a hook and logs it.
func (p *Proxy) rescue(hook string) {
	if v := recover(); v != nil {
		p.panicked(hook, v)
	}
}

// panicked logs the panic of a hook, and returns it as an error.
func (p *Proxy) panicked(hook string, v any) error {
	p.log().Error("slipswitch: a hook has panicked", "hook", hook, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	return fmt.Errorf("%s has panicked: %v", hook, v)
}

// A foreignBody is a body by which Middleware has replaced the client's. The
// transport reads it on a goroutine of its own.
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
