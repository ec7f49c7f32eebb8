package splice

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// looped is a tunnel in a loop. Only the loop's goroutine touches it.
type looped struct {
	pair    *Pair
	loop    *loop
	slot    uint32
	ends    [2]loopedEnd
	pending [2]pending // by the side it came from

	registered, queued, closed, frozen bool

	resetAt int64 // when a side's RST is passed on at the latest; 0 while none is broken
}

// loopedEnd is one connection.
type loopedEnd struct {
	closing
	fd       int
	wrapper  net.Conn // what stands around it, if anything; to be closed with it
	readable bool     // there may be something to read
	last     bool     // FIN or RST has come: read on until it shows
	full     bool     // it takes no bytes until the kernel tells
	short    bool     // a read that does not fill the buffer has emptied the socket
}

// pending is what a flow has taken and its receiver has not: first what is in the pipe, then the bytes.
type pending struct {
	pipe   *pipe
	piped  int
	bytes  []byte
	copied int    // how many of them were
	buffer []byte // what bytes are in, if that was the loop's
	large  bool   // an opaque flow whose last read filled the buffer
}

func (h *pending) empty() bool { return h.piped == 0 && len(h.bytes) == 0 }

// poke implements carrier.
func (t *looped) poke() { t.loop.post(t) }

// look implements carrier.
func (t *looped) look() { t.loop.post(t) }

// rest implements carrier: a quiet tunnel has nothing.
func (t *looped) rest(int64) int64 { return 0 }

// hold keeps bytes for the flow's receiver. They are in the loop's buffer, which goes with them unless too
// many have gone already: then they are copied.
func (t *looped) hold(f *flow, b []byte) {
	l, h := t.loop, &t.pending[f.from]
	if l.lent < lentMost && len(h.bytes) == 0 && len(b) > loopBuffer/8 {
		h.bytes, h.buffer = b, l.buffer
		l.buffer = l.newBuffer()
		return
	}
	t.keep(f, b)
}

// keep keeps a copy of bytes for the flow's receiver.
func (t *looped) keep(f *flow, b []byte) {
	h := &t.pending[f.from]
	h.bytes = append(h.bytes[:len(h.bytes):len(h.bytes)], b...)
	h.copied += len(b)
	t.loop.machine.pending.Add(int64(len(b)))
}

// release gives back what the flow had for its bytes.
func (t *looped) release(f *flow) {
	h := &t.pending[f.from]
	if h.buffer != nil {
		t.loop.giveBuffer(h.buffer)
	}
	if h.copied > 0 {
		t.loop.machine.pending.Add(-int64(h.copied))
	}
	h.bytes, h.buffer, h.copied = nil, nil, 0
}

// event handles what the kernel tells of a side.
func (t *looped) event(side Side, events uint32) {
	end := &t.ends[side]
	const gone = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|gone) != 0 {
		end.readable = true
		end.last = end.last || events&gone != 0
	}
	if events&(unix.EPOLLOUT|gone) != 0 {
		end.full = false
	}
	if events&unix.EPOLLPRI != 0 {
		end.short = false // a read stops at urgent data, whatever follows it
	}
	if events&unix.EPOLLERR != 0 {
		if errno, _ := unix.GetsockoptInt(end.fd, unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 {
			t.broke(side, syscall.Errno(errno))
		}
	}
	if end.readable {
		t.pump(&t.pair.flows[side])
	}
	if back := &t.pair.flows[side.other()]; !end.full && !t.pending[back.from].empty() {
		t.pump(back)
	}
	t.settle()
}

// turn does all there is to do.
func (t *looped) turn() {
	for side := range t.pair.flows {
		t.pump(&t.pair.flows[side])
	}
	t.settle()
}

// pump moves a flow's bytes until there are none, the receiver takes none, or the budget is used up.
func (t *looped) pump(f *flow) {
	src, dst, h := &t.ends[f.from], &t.ends[f.from.other()], &t.pending[f.from]
	for budget := turnBudget; t.flush(f) && src.readable && !dst.broken; {
		if budget <= 0 {
			t.loop.queue(t)
			break
		}
		budget -= t.move(f)
	}
	if h.pipe != nil && h.piped == 0 {
		t.loop.pipes.put(h.pipe, t.loop.now)
		h.pipe = nil
	}
}

// move reads once and writes what came. It returns how many bytes that were.
func (t *looped) move(f *flow) int {
	src := &t.ends[f.from]
	order := t.pair.order.Load()
	if n, ok := t.spliceable(f); ok {
		return t.splice(f, n, order != nil)
	}
	buffer := t.loop.buffer
	if t.loop.machine.pending.Load() > pendingMuch {
		buffer = buffer[:heldLittle]
	}
	early := f.unread(buffer)
	n, errno := read(src.fd, buffer[early:])
	switch {
	case errno == unix.EAGAIN:
		src.readable = false
		return 0
	case errno != 0:
		t.broke(f.from, errno)
		t.endOf(f)
	case n == 0:
		t.endOf(f)
	case early+n < len(buffer):
		if src.short && !src.last {
			src.readable = false
		}
	}
	t.pending[f.from].large = early+n == len(buffer)
	taken := f.take(buffer[:early+n], t.loop.now, order != nil)
	t.pair.note(f, t.loop.now) // before anybody who has seen a Close frame can end the tunnel, too
	t.pass(f, taken)
	return n
}

// pass writes bytes to the flow's receiver, and holds what that does not take. They are in the loop's buffer.
func (t *looped) pass(f *flow, b []byte) {
	dst := &t.ends[f.from.other()]
	for len(b) > 0 && !dst.broken {
		n, errno := write(dst.fd, b)
		if errno == unix.EAGAIN {
			dst.full = true
			t.hold(f, b)
			f.stalled.Store(t.loop.now)
			break
		}
		if errno != 0 {
			t.broke(f.from.other(), errno)
			break
		}
		b = b[n:]
	}
}

// spliceMin is how much of a frame must be to come for the kernel to move it: below that, copying costs less.
const spliceMin = 32 << 10

// spliceable reports whether what comes next may be moved unseen, and how much. The flow then has a pipe.
func (t *looped) spliceable(f *flow) (n int, ok bool) {
	h := &t.pending[f.from]
	switch {
	case f.sealed:
		return 0, false
	case f.opaque.Load():
		if !h.large {
			return 0, false
		}
		n = 1 << 30
	default:
		if n = int(min(f.frames.Rest(), 1<<30)); n < spliceMin {
			return 0, false
		}
	}
	if h.pipe == nil {
		if h.pipe = t.loop.pipes.take(t.loop.now); h.pipe == nil {
			return 0, false
		}
	}
	return min(n, h.pipe.size), true
}

// splice moves up to n bytes into the flow's pipe, which is empty; flush empties it. It returns how many.
func (t *looped) splice(f *flow, n int, ending bool) int {
	src, h := &t.ends[f.from], &t.pending[f.from]
	n, errno := splice(src.fd, h.pipe.in, n)
	switch {
	case errno == unix.EAGAIN: // the pipe is empty, so this is about the socket
		src.readable = false
	case errno == unix.EINVAL: // a socket that cannot
		t.loop.pipes.refuse(t.loop.now, "splice: "+errno.Error())
		t.loop.pipes.destroy(h.pipe)
		h.pipe = nil
	case errno != 0:
		t.broke(f.from, errno)
		t.endOf(f)
	case n == 0:
		t.endOf(f)
	default:
		h.piped = n
		h.large = n >= spliceMin
		f.skip(n, t.loop.now, ending)
	}
	return n
}

// flush writes what the flow holds. It reports whether it holds nothing any more.
func (t *looped) flush(f *flow) bool {
	h := &t.pending[f.from]
	if h.empty() {
		return true
	}
	to := f.from.other()
	dst := &t.ends[to]
	if dst.broken {
		t.drop(f)
		return true
	}
	if dst.full {
		return false
	}
	for !h.empty() {
		var n int
		var errno syscall.Errno
		if h.piped > 0 {
			n, errno = splice(h.pipe.out, dst.fd, h.piped)
			h.piped -= n
		} else {
			n, errno = write(dst.fd, h.bytes)
			h.bytes = h.bytes[n:]
		}
		switch {
		case errno == unix.EAGAIN:
			dst.full = true
			if f.stalled.Load() == 0 {
				f.stalled.Store(t.loop.now)
			}
			return false
		case errno != 0:
			t.broke(to, errno)
			return true
		}
		f.stalled.Store(t.loop.now) // it moves
	}
	t.release(f)
	f.stalled.Store(0)
	t.pair.freed(f, t.loop.now)
	return true
}

// When tunnels hold much for slow receivers, flows read little at a time, since that is what a flow may come to hold.
const (
	pendingMuch = 8 << 20
	heldLittle  = 4 << 10
)

// drop forgets what the flow holds.
func (t *looped) drop(f *flow) {
	h := &t.pending[f.from]
	t.release(f)
	h.piped = 0
	if h.pipe != nil {
		t.loop.pipes.destroy(h.pipe)
		h.pipe = nil
	}
	f.stalled.Store(0)
}

// endOf notes that nothing more comes from the flow's side.
func (t *looped) endOf(f *flow) {
	src := &t.ends[f.from]
	f.eof, src.over, src.readable = true, true, false
	if !src.broken {
		t.pair.halve(f.from, t.loop.now)
	}
}

// broke notes that a side's connection has failed. What came from it before is still read.
func (t *looped) broke(side Side, errno syscall.Errno) {
	end := &t.ends[side]
	if end.broken {
		return
	}
	end.broken = true
	t.pair.fail(causeOf(side, errno))
	t.drop(&t.pair.flows[side.other()])
	end.readable, end.last = !t.pair.flows[side].eof, true
	if t.resetAt == 0 {
		t.resetAt = t.loop.now + resetWait
		t.pair.aborting.Store(true)
	}
}

// settle draws the conclusions: it passes FIN and RST on, goes through an ordered end, and closes.
func (t *looped) settle() {
	if t.closed {
		return
	}
	if t.pair.cut.Load() {
		for side := range t.ends {
			if end := &t.ends[side]; !end.framed || end.sent == 0 {
				linger(end.fd)
			}
		}
		t.close()
		return
	}
	if t.resetAt != 0 {
		t.abort()
		return
	}
	order := t.pair.order.Load()
	if order != nil {
		t.closeStep(order)
		return
	}
	if side, gone := t.pair.vanished(t.loop.now, func(side Side) ack { return ackOf(t.ends[side].fd) }); gone {
		t.broke(side, unix.ETIMEDOUT)
		t.abort()
		return
	}
	if t.pair.half.Load() == nil {
		if t.ping(); t.resetAt != 0 {
			t.abort()
		}
		return
	}
	done := true
	for side := range t.ends {
		f := &t.pair.flows[side]
		if f.eof && t.pending[side].empty() {
			t.shut(f.from.other())
		} else {
			done = false
		}
	}
	if done {
		t.pair.fail(Cause{By: t.pair.half.Load().by, How: FIN})
		t.close()
	}
}

// ping sends the client a ping if it is due one, or ends the tunnel if it has left one unanswered.
func (t *looped) ping() {
	p, f, client := t.pair, &t.pair.flows[Upstream], &t.ends[Client]
	at, answer := p.pulse()
	if at == 0 || at > t.loop.now {
		return
	}
	stalled := !t.pending[Upstream].empty() || client.full
	switch {
	case answer:
		p.unanswered(stalled || arriving(client.fd), t.loop.now)
	case !stalled && f.frames.Boundary():
		t.keep(f, p.ping(t.loop.now))
		t.flush(f)
	}
}

// shut shuts a connection down for writing.
func (t *looped) shut(side Side) {
	if end := &t.ends[side]; end.fin == 0 && !end.broken {
		end.fin = t.loop.now
		unix.Shutdown(end.fd, unix.SHUT_WR)
	}
}

// abort passes a broken side's end on to the other, once that has all that came before it.
func (t *looped) abort() {
	late := t.loop.now >= t.resetAt
	for side := range t.ends {
		f, other := &t.pair.flows[side], &t.ends[side^1]
		if !t.ends[side].broken || other.broken {
			continue
		}
		if !f.eof {
			t.pump(f)
		}
		if !late && (!f.eof || !t.pending[side].empty()) {
			t.pair.machine.clock.wake(&t.pair.timer, t.resetAt)
			return
		}
		if !late && !queueEmpty(other.fd) {
			t.pair.machine.clock.wake(&t.pair.timer, t.loop.now)
			return
		}
		linger(other.fd)
	}
	t.close()
}

// closeStep takes each side one step further in an ordered end.
func (t *looped) closeStep(o *order) {
	now := t.loop.now
	done := true
	for side := range t.ends {
		end, f := &t.ends[side], &t.pair.flows[side^1] // a connection, and the flow it receives
		if end.sent == 0 && end.fin == 0 {             // else it has had its last byte long ago
			t.seal(f, o)
		}
		if t.pair.flows[side].closed() {
			end.over = true
		}
		if end.due(now) {
			t.shut(Side(side))
		}
		switch {
		case t.resetAt != 0:
			t.abort()
			return
		case end.fin != 0 && t.pair.flows[side].eof:
		case end.fin != 0 && now >= end.fin+finWait:
			linger(end.fd)
		default:
			done = false
			t.pair.machine.clock.wake(&t.pair.timer, end.deadline(o))
		}
	}
	if done {
		t.close()
	}
}

// seal ends a flow with a Close frame if it can, or without one if there is no place for it in time.
func (t *looped) seal(f *flow, o *order) {
	end := &t.ends[f.from.other()]
	if f.seal(); f.sealed && !end.framed {
		if closeFrame := f.closeFrame(o); closeFrame != nil {
			end.framed = true
			t.keep(f, closeFrame)
		}
	}
	if t.loop.now >= o.at+boundaryWait { // no place, or no one takes it
		f.sealed, end.framed = true, false
		t.drop(f)
	}
	if f.sealed && t.flush(f) {
		end.sent = t.loop.now
	}
}

// close ends the tunnel.
func (t *looped) close() {
	t.closed = true
	for side := range t.pair.flows {
		t.drop(&t.pair.flows[side])
	}
	t.loop.unregister(t)
	t.closeConns()
	t.pair.finish()
}

func (t *looped) closeConns() {
	for side := range t.ends {
		end := &t.ends[side]
		unix.Close(end.fd)
		if end.wrapper != nil {
			end.wrapper.Close()
		}
	}
}

// linger makes the coming close of a descriptor a reset.
func linger(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}
