package caddyslipswitch

import "github.com/slipswitch/slipswitch"

// RouterOf returns the router of a name, nil if there is none.
func RouterOf(name string) (router *slipswitch.Router) {
	pool.Range(func(key, value any) bool {
		if key == name {
			router = &value.(*shared).router
		}
		return router == nil
	})
	return router
}
