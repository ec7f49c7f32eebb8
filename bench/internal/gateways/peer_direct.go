package gateways

import "context"

// directPeer is no gateway at all: the backend itself, for what the load
// generator could measure at most.
var directPeer = &peer{
	name:    "direct",
	version: func(context.Context) (string, error) { return "no gateway", nil },
	start: func(_ context.Context, s setup) (*gateway, error) {
		return &gateway{addr: s.backend.addresses()[0], stop: func() {}}, nil
	},
}
