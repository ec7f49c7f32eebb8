// Package splice carries tunnels: two connections in, events and one end out. It knows connections and WebSocket
// frames, never routes.
package splice
