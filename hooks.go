package slipswitch

import (
	"fmt"
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
