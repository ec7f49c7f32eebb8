//go:build !linux

package linger

// finAndReset does nothing: the close that follows sends the reset.
func finAndReset(uintptr) {}
