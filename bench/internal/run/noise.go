package run

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// A watch tells how much of the machine others use: all that the processors
// did, less what this process and its descendants did.
type watch struct {
	busy, stolen, all int // ticks
	own               map[int]time.Duration
}

// tick is USER_HZ, the same on all machines.
const tick = 10 * time.Millisecond

func newWatch() *watch {
	w := &watch{own: map[int]time.Duration{}}
	w.busy, w.stolen, w.all = ticks()
	for _, pid := range Tree(os.Getpid()) {
		w.own[pid] = processTime(pid)
	}
	return w
}

// noise returns the share that others had of all cores since the watch began.
// What processes used that ended in between is counted as others': it
// is for measurements in which none does.
func (w *watch) noise() float64 {
	busy, stolen, all := ticks()
	var own time.Duration
	for _, pid := range Tree(os.Getpid()) {
		own += processTime(pid) - w.own[pid]
	}
	if all == w.all {
		return 0
	}
	others := time.Duration(busy-w.busy)*tick - own + time.Duration(stolen-w.stolen)*tick
	share := float64(others) / float64(time.Duration(all-w.all)*tick)
	return min(1, max(0, share))
}

// ticks are those of all cores since the start of the system.
func ticks() (busy, stolen, all int) {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	const idle, wait, steal, guest = 3, 4, 7, 8
	for i, number := range strings.Fields(line) {
		n, err := strconv.Atoi(number)
		i-- // behind "cpu"
		if err != nil || i >= guest {
			continue // guests are counted among users
		}
		all += n
		switch i {
		case idle, wait:
		case steal:
			stolen += n
		default:
			busy += n
		}
	}
	return busy, stolen, all
}
