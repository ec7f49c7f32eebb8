package splice

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pipes are what large payload is moved through. A flow takes one while it moves or holds bytes and puts it back empty;
// one that is not empty is destroyed. Those nobody needed for a second are closed.
type pipes struct {
	machine     *machine
	size, limit int

	mu    sync.Mutex
	open  int     // all there are
	idle  []*pipe // the last one was used last
	until int64   // until when none is to be made, since the last try failed
	timer entry
}

type pipe struct {
	in, out int
	size    int
	used    int64 // when it was put back
}

const (
	pipeLeast = 64 << 10 // a smaller one is slower than copying
	pipeIdle  = int64(time.Second)
	pipePause = int64(5 * time.Second)
)

func newPipes(m *machine) *pipes {
	ps := &pipes{machine: m, size: m.engine.pipeSize(), limit: m.engine.maxPipes()}
	ps.timer.expire = ps.trim
	return ps
}

// take returns an empty pipe, or nil: then copy.
func (ps *pipes) take(now int64) *pipe {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if n := len(ps.idle); n > 0 {
		p := ps.idle[n-1]
		ps.idle[n-1] = nil
		ps.idle = ps.idle[:n-1]
		return p
	}
	if ps.open >= ps.limit || now < ps.until {
		return nil
	}
	p, err := newPipe(ps.size)
	if err != nil {
		ps.until = now + pipePause
		ps.machine.copying(err.Error())
		return nil
	}
	ps.open++
	return p
}

// put takes an empty pipe back.
func (ps *pipes) put(p *pipe, now int64) {
	ps.mu.Lock()
	p.used = now
	ps.idle = append(ps.idle, p)
	first := len(ps.idle) == 1
	ps.mu.Unlock()
	if first {
		ps.machine.clock.wake(&ps.timer, now+pipeIdle)
	}
}

// destroy closes a pipe that is not empty.
func (ps *pipes) destroy(p *pipe) {
	p.close()
	ps.mu.Lock()
	ps.open--
	ps.mu.Unlock()
}

// refuse makes no pipes for a while.
func (ps *pipes) refuse(now int64, reason string) {
	ps.mu.Lock()
	ps.until = now + pipePause
	ps.mu.Unlock()
	ps.machine.copying(reason)
}

// trim closes the pipes that have not been used for a while.
func (ps *pipes) trim() {
	now := ps.machine.clock.now()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	old := 0
	for old < len(ps.idle) && ps.idle[old].used <= now-pipeIdle {
		ps.idle[old].close()
		old++
	}
	ps.open -= old
	ps.idle = append(ps.idle[:0], ps.idle[old:]...)
	if len(ps.idle) > 0 {
		ps.machine.clock.wake(&ps.timer, ps.idle[0].used+pipeIdle)
	}
}

// stop closes all pipes; no tunnel is left to hold one.
func (ps *pipes) stop() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.machine.clock.forget(&ps.timer)
	for _, p := range ps.idle {
		p.close()
	}
	ps.open -= len(ps.idle)
	ps.idle = nil
}

// newPipe makes a pipe of the given size. The kernel gives a process smaller ones, down to 4 KiB, when its user
// has too many (fs.pipe-user-pages-soft), so the size is asked for afterwards.
func newPipe(size int) (*pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe2: %w", err)
	}
	p := &pipe{in: fds[1], out: fds[0]}
	unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, size)
	got, err := unix.FcntlInt(uintptr(p.in), unix.F_GETPIPE_SZ, 0)
	if err != nil || got < pipeLeast {
		p.close()
		return nil, fmt.Errorf("a pipe of %d bytes is too small", got)
	}
	p.size = min(got, size)
	return p, nil
}

func (p *pipe) close() {
	unix.Close(p.in)
	unix.Close(p.out)
}
