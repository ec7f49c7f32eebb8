package run

import (
	"time"

	"golang.org/x/sys/unix"
)

// processTime reads a process's own clock: exact, and with the threads that
// have ended, where /proc counts ticks or forgets those.
func processTime(pid int) time.Duration {
	const scheduler = 2 // CPUCLOCK_SCHED, see clock_getcpuclockid(3)
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &t); err != nil {
		return 0 // it has ended
	}
	return time.Duration(t.Nano())
}
