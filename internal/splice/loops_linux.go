package splice

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loops carry plain sockets. Each is one goroutine with an epoll of its own, and owns its tunnels' descriptors and
// flows outright: nothing of them is locked, and a tunnel for which nothing is to do is nothing but two descriptors in the
// kernel's list. That list is a descriptor itself and stands in the runtime's poller like any other, so the goroutine waits
// as one waits for a connection and costs no thread.
//
// The descriptors are duplicates, and the net.Conns they came from are closed at once: so they are not in the runtime's
// poller as well, where each arrival would wake it a second time, and a tunnel costs half the memory.
type loops struct {
	all   []*loop
	next  atomic.Uint32
	pipes *pipes
}

func startLoops(m *machine) *loops {
	ls := &loops{pipes: newPipes(m)}
	for range runtime.GOMAXPROCS(0) {
		l, err := startLoop(m, ls.pipes)
		if err != nil {
			m.copying(err.Error())
			break
		}
		ls.all = append(ls.all, l)
	}
	return ls
}

func (ls *loops) stop() {
	if ls == nil {
		return
	}
	for _, l := range ls.all {
		l.stop()
	}
	ls.pipes.stop()
}

// carry: if it returns false, it has performed no work.
func (ls *loops) carry(p *Pair, c Config) bool {
	if ls == nil || len(ls.all) == 0 {
		return false
	}
	t := &looped{pair: p, loop: ls.pick()}
	conns := [2]net.Conn{c.Client, c.Upstream}
	var bare [2]bareConn
	for side, conn := range conns {
		var err error
		if bare[side], err = plain(conn); err == nil {
			t.ends[side].fd, err = t.loop.adopt(bare[side])
		}
		if err != nil {
			if side == int(Upstream) {
				t.loop.abandon(t.ends[Client].fd)
			}
			p.machine.copying(fmt.Sprintf("%v connection: %v", Side(side), err))
			return false
		}
	}
	for side, conn := range conns {
		_, t.ends[side].short = bare[side].(*net.TCPConn)
		bare[side].Close()
		if conn != net.Conn(bare[side]) {
			t.ends[side].wrapper = conn
		}
	}
	p.carrier = t
	for side, early := range [][]byte{c.FromClient, c.FromUpstream} {
		if len(early) > 0 {
			f := &p.flows[side]
			t.keep(f, f.take(early, p.machine.clock.now(), false))
			p.note(f, p.machine.clock.now())
		}
	}
	p.arm()
	t.poke()
	return true
}

// pick returns the loop for one more tunnel.
func (ls *loops) pick() *loop { return ls.all[ls.next.Add(1)%uint32(len(ls.all))] }

// bareConn is a connection that is nothing but a socket.
type bareConn interface {
	net.Conn
	syscall.Conn
}

// plain returns the socket under transparent wrappers.
func plain(conn net.Conn) (bareConn, error) {
	for {
		switch c := conn.(type) {
		case *net.TCPConn:
			return c, nil
		case *net.UnixConn:
			if c.LocalAddr().Network() == "unix" {
				return c, nil
			}
			return nil, fmt.Errorf("not a stream")
		case Transparent:
			conn = c.Transparent()
		default:
			return nil, fmt.Errorf("%T is not a plain socket", conn)
		}
	}
}

// adopt returns a descriptor of our own for the socket, non-blocking and in the loop's epoll, which may have no room for it.
// Events are not asked for before the tunnel has its slot.
func (l *loop) adopt(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	if err := l.add(fd); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// add puts a descriptor into the loop's epoll, silenced.
func (l *loop) add(fd int) error {
	unix.SetNonblock(fd, true) // File().Fd() may have made it blocking
	event := silence
	return os.NewSyscallError("epoll_ctl", epollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// silence asks for no events. The kernel tells of errors anyway: those are nobody's.
var silence = unix.EpollEvent{Events: unix.EPOLLET & 0xffffffff, Fd: -1}

// abandon gives an adopted descriptor up. It would stay in the epoll while its socket has another.
func (l *loop) abandon(fd int) {
	unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	unix.Close(fd)
}

var epollCtl = unix.EpollCtl // fails in tests

// loop is one goroutine and its tunnels.
type loop struct {
	machine *machine
	pipes   *pipes

	epoll int
	file  *os.File // the same, for the runtime's poller
	raw   syscall.RawConn

	// Of the goroutine alone:
	now     int64
	yielded int64
	buffer  []byte // lent to one flow at a time
	events  []unix.EpollEvent
	arrived int       // how many events the last look found
	lent    int       // how many buffers are with tunnels whose receivers are slow
	spare   [][]byte  // buffers that have come back
	ready   []*looped // tunnels that used up their budget, in order
	slots   []slot
	free    []uint32

	called   atomic.Bool
	mu       sync.Mutex
	inbox    []*looped // tunnels that are new, or have been poked
	calls    []func()  // after these
	stopping bool
}

// slot is where a tunnel stands in its loop. An event carries slot and generation, so that one for a tunnel that has
// ended meanwhile is known as such, whatever the descriptor's number has been given to.
type slot struct {
	tunnel     *looped
	generation int32
}

const (
	eventsAtOnce = 128
	loopBuffer   = 64 << 10
	lentMost     = 64                      // buffers with tunnels whose receivers are slow
	spareMost    = 8                       // buffers kept for the next time
	turnBudget   = 256 << 10               // bytes a flow may move before others have their turn
	runBudget    = int64(time.Millisecond) // time a loop may run before other goroutines have theirs
)

func startLoop(m *machine, pipes *pipes) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	unix.SetNonblock(fd, true) // for os.NewFile to put it into the runtime's poller
	l := &loop{
		machine: m,
		pipes:   pipes,
		epoll:   fd,
		file:    os.NewFile(uintptr(fd), "epoll"),
		buffer:  make([]byte, loopBuffer),
		events:  make([]unix.EpollEvent, eventsAtOnce),
	}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	go l.run()
	return l, nil
}

// stop ends the loop; it has no tunnels.
func (l *loop) stop() {
	l.mu.Lock()
	l.stopping = true
	l.mu.Unlock()
	l.call()
}

// post has the loop look at a tunnel soon.
func (l *loop) post(t *looped) {
	l.mu.Lock()
	first := len(l.inbox) == 0
	l.inbox = append(l.inbox, t)
	l.mu.Unlock()
	if first {
		l.call()
	}
}

// do calls f on the loop's goroutine and returns when it has been called. It reports false if the loop has ended instead.
func (l *loop) do(f func()) bool {
	done := make(chan struct{})
	l.mu.Lock()
	if l.stopping {
		l.mu.Unlock()
		return false
	}
	l.calls = append(l.calls, func() { f(); close(done) })
	l.mu.Unlock()
	l.call()
	<-done
	return true
}

// newBuffer lends a flow the loop's buffer, so to say, by getting the loop another.
func (l *loop) newBuffer() []byte {
	l.lent++
	if n := len(l.spare); n > 0 {
		b := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return b
	}
	return make([]byte, loopBuffer)
}

// giveBuffer takes a lent buffer back.
func (l *loop) giveBuffer(b []byte) {
	l.lent--
	if len(l.spare) < spareMost {
		l.spare = append(l.spare, b)
	}
}

// call makes the goroutine look into its inbox.
func (l *loop) call() {
	l.called.Store(true)
	l.file.SetReadDeadline(past) // its wait returns
}

// run is the loop.
func (l *loop) run() {
	defer l.file.Close()
	look := l.look
	for {
		called := false
		if len(l.ready) > 0 {
			l.look(0)
			called = l.called.Load()
		} else if l.raw.Read(look) != nil { // its deadline is over
			l.arrived, called = 0, true
		}
		if called && !l.open() {
			return
		}
		l.now = l.machine.clock.now()
		for i := range l.arrived {
			l.dispatch(&l.events[i])
		}
		if len(l.ready) > 0 {
			t := l.ready[0]
			l.ready = l.ready[1:]
			t.queued = false
			if !t.closed && !t.frozen {
				t.turn()
			}
		}
		l.yield()
	}
}

// look fetches events without waiting. Only when there are none may the goroutine wait: the runtime's poller
// tells of the first one that comes to an empty list.
func (l *loop) look(uintptr) bool {
	l.arrived = epollWait(l.epoll, l.events)
	if l.arrived == 0 {
		l.yielded = 0 // waiting is yielding
	}
	return l.arrived > 0
}

// open takes in what has been posted. It returns false when the loop is to end.
func (l *loop) open() bool {
	l.called.Store(false)
	l.file.SetReadDeadline(time.Time{}) // who posts from here on calls again
	l.mu.Lock()
	posted, calls, stopping := l.inbox, l.calls, l.stopping
	l.inbox, l.calls = nil, nil
	l.mu.Unlock()
	l.now = l.machine.clock.now()
	for _, t := range posted {
		switch {
		case t.closed, t.frozen:
		case !t.registered:
			l.register(t)
		default:
			t.turn()
		}
	}
	for _, f := range calls {
		f()
	}
	return !stopping
}

// register gives a tunnel its slot and asks for every kind of event of its descriptors, each once: there is no call to make
// when a tunnel falls quiet, and none when it wakes.
func (l *loop) register(t *looped) {
	if n := len(l.free); n > 0 {
		t.slot, l.free = l.free[n-1], l.free[:n-1]
	} else {
		t.slot = uint32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	s := &l.slots[t.slot]
	s.tunnel = t
	t.registered = true
	for side := range t.ends {
		event := unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET&0xffffffff,
			Fd:     int32(t.slot<<1 | uint32(side)),
			Pad:    s.generation,
		}
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, t.ends[side].fd, &event); err != nil {
			t.pair.fail(Cause{By: Gateway, How: WriteError, Errno: err.(syscall.Errno)})
			t.broke(Side(side), err.(syscall.Errno))
		}
	}
	t.turn()
}

// unregister takes a tunnel out. The close of its descriptors, which are nobody else's, takes them out of the epoll.
func (l *loop) unregister(t *looped) {
	s := &l.slots[t.slot]
	s.tunnel = nil
	s.generation++
	l.free = append(l.free, t.slot)
}

// dispatch hands an event to its tunnel at once: the order of events is the order of what happened.
func (l *loop) dispatch(event *unix.EpollEvent) {
	if event.Fd < 0 {
		return // silenced, and asked about once more when that ends
	}
	s := &l.slots[uint32(event.Fd)>>1]
	if s.tunnel == nil || s.generation != event.Pad {
		return
	}
	s.tunnel.event(Side(event.Fd&1), event.Events)
}

// queue has a tunnel go on after the others had their turn.
func (l *loop) queue(t *looped) {
	if !t.queued {
		t.queued = true
		l.ready = append(l.ready, t)
	}
}

// yield lets other goroutines run. A loop that always finds something to do would keep a processor for 10 ms at a time,
// and the runtime does not even look at its poller while a goroutine is waiting to run. A short sleep makes it look.
func (l *loop) yield() {
	switch {
	case l.yielded == 0:
		l.yielded = l.now
	case l.now-l.yielded > runBudget:
		time.Sleep(time.Nanosecond)
		l.yielded = 0
	}
}
