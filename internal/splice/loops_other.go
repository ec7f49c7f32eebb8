//go:build !linux

package splice

import "net"

// loops would carry plain sockets without goroutines of their own. On this system there are none.
type loops struct{}

func startLoops(*machine) *loops { return nil }

func (l *loops) stop() {}

// carry: if it returns false, it has performed no work.
func (l *loops) carry(*Pair, Config) bool { return false }

// sendQueueEmpty: if handled is false, it has performed no work.
func sendQueueEmpty(*net.TCPConn) (empty, handled bool) { return false, false }

// stillArriving: where it cannot be told, all has arrived.
func stillArriving(*net.TCPConn) bool { return false }

// ackBy: where it cannot be told, all is acknowledged.
func ackBy(*net.TCPConn) ack { return ack{} }

// wasReset: where it cannot be told, it was not.
func wasReset(*net.TCPConn) bool { return false }
