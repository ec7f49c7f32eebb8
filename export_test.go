package slipswitch

import "time"

// Spread calls end n times as tunnels are ended over a window.
func Spread(n int, window time.Duration, end func()) {
	tunnels := make([]*Tunnel, n)
	for i := range tunnels {
		tunnels[i] = new(Tunnel)
	}
	spread(tunnels, window, func(*Tunnel) { end() })
}
