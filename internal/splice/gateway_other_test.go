//go:build !linux

package splice_test

// child: see gateway_linux_test.go. Here there are none.
func child() bool { return false }
