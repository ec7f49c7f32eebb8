//go:build unix

package filestore

import "syscall"

// openFlags keep Open from waiting for a pipe's other end.
const openFlags = syscall.O_NONBLOCK
