//go:build unix

package descriptor

import (
	"math"
	"os"
	"syscall"
)

// Limit returns how many descriptors the process may have open. It reports false if
// there is no such limit, or none that can be found out.
func Limit() (n int, ok bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return 0, false
	}
	return int(limit.Cur), true
}

// next returns the number of the next descriptor, and false if there is none left.
func next() (fd int, ok bool) {
	fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err != syscall.EMFILE && err != syscall.ENFILE
	}
	syscall.Close(fd)
	return fd, true
}
