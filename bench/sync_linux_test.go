package main

import (
	"os"
	"syscall"
)

// fdatasync is what bbolt does on Linux.
func fdatasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
