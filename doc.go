// Package slipswitch routes HTTP and WebSocket traffic, and never reloads.
package slipswitch
