package splice

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Freeze brings the tunnel to a standstill. It waits for what its loop is at, which is a millisecond or two; an error says why the
// tunnel goes on instead: it ends, or is carried by copying, or is frozen already.
func (p *Pair) Freeze() (*Frozen, error) {
	t, ok := p.carrier.(*looped)
	if !ok {
		return nil, ErrPortable
	}
	var frozen *Frozen
	err := ErrEnding
	if !t.loop.do(func() { frozen, err = t.freeze() }) {
		return nil, ErrEnding
	}
	return frozen, err
}

// freeze takes the tunnel out of its loop. What is in a pipe is read out.
func (t *looped) freeze() (*Frozen, error) {
	switch {
	case t.frozen:
		return nil, ErrFrozen
	case t.closed, t.resetAt != 0, t.pair.cut.Load():
		return nil, ErrEnding
	}
	for side := range t.pending {
		if errno := t.unpipe(&t.pair.flows[side]); errno != 0 {
			t.broke(Side(side).other(), errno) // a part of what was on its way is lost
			t.settle()
			return nil, ErrEnding
		}
	}
	r := t.pair.record([2][]byte{t.pending[Client].bytes, t.pending[Upstream].bytes},
		[2]closing{t.ends[Client].closing, t.ends[Upstream].closing}, monotonic()-t.pair.machine.clock.now())
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	for side := range t.ends {
		event := silence
		unix.EpollCtl(t.loop.epoll, unix.EPOLL_CTL_MOD, t.ends[side].fd, &event)
	}
	t.loop.unregister(t)
	t.registered, t.frozen = false, true
	t.pair.machine.clock.forget(&t.pair.timer)
	return &Frozen{Record: b, Client: t.ends[Client].fd, Upstream: t.ends[Upstream].fd, tunnel: t}, nil
}

// unpipe has the flow hold as bytes what it holds in a pipe.
func (t *looped) unpipe(f *flow) syscall.Errno {
	h := &t.pending[f.from]
	if h.pipe == nil {
		return 0
	}
	if h.piped > 0 {
		piped := make([]byte, h.piped)
		for at := 0; at < len(piped); {
			n, err := syscall.Read(h.pipe.out, piped[at:])
			if err != nil && err != syscall.EINTR {
				return err.(syscall.Errno)
			}
			at += max(n, 0)
		}
		after := h.bytes
		t.release(f) // a lent buffer goes back, but not before its bytes are copied
		h.bytes = nil
		t.keep(f, append(piped, after...))
		h.piped = 0
	}
	t.loop.pipes.put(h.pipe, t.loop.now)
	h.pipe = nil
	return 0
}

// thaw implements freezer.
func (t *looped) thaw() {
	t.loop.do(func() {
		t.frozen = false
		for side := range t.ends {
			t.ends[side].full, t.ends[side].readable = false, true // an edge may have passed
		}
		t.pair.arm()
		t.loop.register(t)
	})
}

// letGo implements freezer.
func (t *looped) letGo() {
	t.loop.do(func() {
		t.closed = true
		for side := range t.pair.flows {
			t.drop(&t.pair.flows[side])
			unix.EpollCtl(t.loop.epoll, unix.EPOLL_CTL_DEL, t.ends[side].fd, nil) // the socket lives on, and would stay there
		}
		t.closeConns()
		t.pair.machine.clock.forget(&t.pair.timer)
		t.pair.machine.engine.leave()
	})
}

// Import has the engine carry a tunnel that was frozen, maybe in another process, with descriptors for the same two
// connections, which it owns from then on; with an error it has not touched them. Ended is as in Config.
func (e *Engine) Import(record []byte, client, upstream int, ended func(End)) (*Pair, error) {
	r, err := readRecord(record)
	if err != nil {
		return nil, err
	}
	fds := [2]int{client, upstream}
	for side, fd := range fds {
		if err := checkStream(fd); err != nil {
			return nil, fmt.Errorf("splice: the %v's descriptor: %w", Side(side), err)
		}
	}
	if client == upstream {
		return nil, errors.New("splice: one descriptor for both sides")
	}
	m := e.enter()
	p, err := m.revive(r, fds, ended)
	if err != nil {
		e.leave()
		return nil, err
	}
	return p, nil
}

func (m *machine) revive(r *record, fds [2]int, ended func(End)) (*Pair, error) {
	if m.loops == nil || len(m.loops.all) == 0 {
		return nil, ErrPortable
	}
	p, ends, err := r.revive(m, ended, monotonic()-m.clock.now())
	if err != nil {
		return nil, err
	}
	t := &looped{pair: p, loop: m.loops.pick()}
	p.carrier = t
	for side, fd := range fds {
		unix.CloseOnExec(fd)
		if err := t.loop.add(fd); err != nil {
			if side == int(Upstream) {
				unix.EpollCtl(t.loop.epoll, unix.EPOLL_CTL_DEL, fds[Client], nil)
			}
			return nil, fmt.Errorf("splice: the %v's descriptor: %w", Side(side), err)
		}
	}
	for side, fd := range fds {
		domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		t.ends[side] = loopedEnd{closing: ends[side], fd: fd, readable: !r.Sides[side].EOF, short: domain != unix.AF_UNIX}
		if pending := r.Sides[side].Pending; len(pending) > 0 {
			t.keep(&p.flows[side], pending)
		}
	}
	p.arm()
	t.poke()
	return p, nil
}

// checkStream returns why a descriptor is no connected stream socket.
func checkStream(fd int) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if kind != unix.SOCK_STREAM || listens != 0 {
		return errors.New("not a stream between two peers")
	}
	return nil
}

// monotonic returns the time of the clock that all processes of the machine share.
func monotonic() int64 {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // which cannot fail
	return now.Nano()
}
