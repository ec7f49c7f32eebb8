package splice

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// The portable pump: two goroutines for each tunnel, one for each flow. It carries what is not a plain socket, such as
// TLS, and everything where there is no epoll.
//
// A goroutine owns its flow and is the only one that writes to the flow's receiver. Nobody else touches its state;
// who wants something of it leaves word in the pair or under mu and pokes: a read deadline in the past makes
// a blocked Read return. Since flags are set before the deadline, and read after it has been cleared, no word is lost.

const (
	quietSize = 1 << 10                       // what a flow waits with while nothing comes
	warm      = int64(250 * time.Millisecond) // how long it keeps a large buffer after the last byte
)

type portable struct {
	pair  *Pair
	conns [2]net.Conn

	mu      sync.Mutex
	running int
	ends    [2]closing
	warm    [2]bool // the flow has a large buffer
	gone    [2]bool // the side's end has been read
	mute    [2]bool // the side cannot be shut down for writing: only its close tells it
	late    [2]bool // the side did not finish in time
	killed  bool    // both goroutines are to leave at once
}

func carryPortable(p *Pair, c Config) {
	t := &portable{pair: p, conns: [2]net.Conn{c.Client, c.Upstream}, running: 2}
	p.carrier = t
	for _, conn := range t.conns {
		conn.SetDeadline(time.Time{})
	}
	fromClient := append([]byte(nil), c.FromClient...)
	fromUpstream := append([]byte(nil), c.FromUpstream...)
	p.arm()
	go t.carryClient(fromClient)
	go t.carryUpstream(fromUpstream)
}

// socket returns the connection under TLS and transparent wrappers.
func socket(conn net.Conn) net.Conn {
	for {
		switch c := conn.(type) {
		case *tls.Conn:
			conn = c.NetConn()
		case Transparent:
			conn = c.Transparent()
		default:
			return conn
		}
	}
}

func (t *portable) carryClient(early []byte)   { t.carry(&t.pair.flows[Client], early) }
func (t *portable) carryUpstream(early []byte) { t.carry(&t.pair.flows[Upstream], early) }

// carry moves one flow until it is over.
func (t *portable) carry(f *flow, early []byte) {
	defer t.leave()
	p, src := t.pair, t.conns[f.from]
	if !t.pass(f, early) {
		return
	}
	quiet := make([]byte, quietSize)
	buffer := quiet
	defer func() {
		if len(buffer) != quietSize {
			p.machine.buffers.give(buffer)
		}
	}()
	for {
		if !t.obey(f) {
			return
		}
		early := f.unread(buffer)
		n, err := src.Read(buffer[early:])
		f.eof = err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
		if (n > 0 || f.eof) && !t.pass(f, buffer[:early+n]) {
			return
		}
		switch {
		case err == nil:
			if early+n == quietSize && len(buffer) == quietSize {
				buffer = p.machine.buffers.take()
				t.warmed(f, true)
			}
		case err == io.EOF:
			if p.order.Load() != nil && !t.obey(f) {
				return
			}
			t.endOf(f)
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			src.SetReadDeadline(time.Time{}) // then obey looks what there is to do
			if len(buffer) != quietSize {
				p.machine.buffers.give(buffer)
				buffer = quiet
				t.warmed(f, false)
			}
		default:
			t.broke(f.from, err)
			return
		}
	}
}

// warmed notes whether a flow has a large buffer. It is to give it back when nothing has come for a while.
func (t *portable) warmed(f *flow, warmed bool) {
	t.mu.Lock()
	t.warm[f.from] = warmed
	t.mu.Unlock()
	if warmed {
		t.pair.machine.clock.wake(&t.pair.timer, t.pair.machine.clock.now()+warm)
	}
}

// rest implements carrier.
func (t *portable) rest(now int64) (again int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for side := range t.warm {
		if !t.warm[side] {
			continue
		}
		due := t.pair.flows[side].lastData.Load() + warm
		if due <= now {
			t.conns[side].SetReadDeadline(past)
		} else if again == 0 || due < again {
			again = due
		}
	}
	return again
}

// pass forwards what has been read. It reports whether the flow goes on.
func (t *portable) pass(f *flow, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	p := t.pair
	now := p.machine.clock.now()
	keep := f.take(b, now, p.order.Load() != nil)
	p.note(f, now)
	return t.write(f, keep)
}

// write writes to the flow's receiver. It reports whether the flow goes on.
func (t *portable) write(f *flow, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	clock := t.pair.machine.clock
	began := clock.now()
	f.stalled.Store(began)
	_, err := t.conns[f.from.other()].Write(b)
	f.stalled.Store(0)
	if now := clock.now(); now-began > int64(tick) {
		t.pair.freed(f, now)
	}
	if err == nil {
		return true
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && t.pair.order.Load() != nil {
		f.sealed, f.room = true, false // poke has given up the receiver; obey goes on from here
		return true
	}
	t.broke(f.from.other(), err)
	return false
}

// obey does what the gateway wants of the flow. It reports whether the flow goes on.
func (t *portable) obey(f *flow) bool {
	p, src, dst := t.pair, f.from, f.from.other()
	t.mu.Lock()
	stop := t.killed || t.ends[dst].broken
	sent := t.ends[dst].sent != 0
	t.mu.Unlock()
	o := p.order.Load()
	if stop {
		return false
	}
	now := p.machine.clock.now()
	if o == nil {
		return src == Client || t.ping(f, now)
	}
	if !sent {
		f.seal()
		if !f.sealed && now >= o.at+boundaryWait {
			f.sealed = true
		}
		if f.sealed {
			closeFrame := f.closeFrame(o)
			if !t.write(f, closeFrame) {
				return false
			}
			t.mu.Lock()
			t.ends[dst].sent, t.ends[dst].framed = now, closeFrame != nil && f.room
			t.mu.Unlock()
		}
	}
	if f.closed() {
		t.mu.Lock()
		t.ends[src].over = true
		t.mu.Unlock()
	}
	t.closeStep(now)
	return true
}

// ping sends the client a ping if it is due one, or ends the tunnel if it has left one unanswered. It reports whether the
// upstream's flow goes on.
func (t *portable) ping(f *flow, now int64) bool {
	p := t.pair
	at, answer := p.pulse()
	if at == 0 || at > now {
		return true
	}
	if !answer {
		return !f.frames.Boundary() || t.write(f, p.ping(now))
	}
	tcp, ok := socket(t.conns[Client]).(*net.TCPConn)
	p.unanswered(ok && stillArriving(tcp), now)
	return true
}

// closeStep shuts down each connection that has got its last byte, and has answered or will not.
func (t *portable) closeStep(now int64) {
	for side := range t.ends {
		end := &t.ends[side]
		t.mu.Lock()
		due := end.due(now)
		if due {
			end.fin = now
		}
		t.mu.Unlock()
		if due {
			t.shut(Side(side))
		}
	}
	if t.finished(now) {
		t.kill()
		return
	}
	t.schedule()
}

// shut shuts a connection down for writing. It reports whether it can be.
func (t *portable) shut(side Side) bool {
	if closeWrite(t.conns[side]) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mute[side] = true
	return false
}

// finished reports whether, in an ordered end, no side needs any more time.
func (t *portable) finished(now int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	done := true
	for side := range t.ends {
		switch end := &t.ends[side]; {
		case end.fin == 0:
			done = false
		case t.gone[side] || t.mute[side]:
			t.late[side] = false
		case now >= end.fin+finWait:
			t.late[side] = true
		default:
			done = false
		}
	}
	return done
}

// schedule has the timer poke at the next deadline of an ordered end.
func (t *portable) schedule() {
	o := t.pair.order.Load()
	if o == nil {
		return
	}
	t.mu.Lock()
	at := int64(0)
	for side := range t.ends {
		if t.ends[side].fin != 0 && (t.gone[side] || t.mute[side] || t.late[side]) {
			continue // nothing more is due there
		}
		if next := t.ends[side].deadline(o); next != 0 && (at == 0 || next < at) {
			at = next
		}
	}
	t.mu.Unlock()
	if at != 0 {
		t.pair.machine.clock.wake(&t.pair.timer, at)
	}
}

// endOf handles EOF: all that came before it has been written.
func (t *portable) endOf(f *flow) {
	p, src, dst := t.pair, f.from, f.from.other()
	now := p.machine.clock.now()
	f.eof = true
	t.mu.Lock()
	broken, reset := t.ends[src].broken, false
	if tcp, ok := socket(t.conns[src]).(*net.TCPConn); ok && t.ends[src].fin == 0 {
		reset = wasReset(tcp) // under mu, so that it is not being shut down meanwhile
	}
	t.mu.Unlock()
	if reset {
		t.broke(src, syscall.ECONNRESET)
	}
	if broken || reset {
		return // no FIN: the reset is passed on
	}
	p.halve(src, now)
	t.mu.Lock()
	t.ends[src].over, t.gone[src] = true, true
	both := t.ends[dst].over
	tell := t.ends[dst].fin == 0
	if tell {
		t.ends[dst].fin = now
	}
	t.mu.Unlock()
	if both && p.order.Load() == nil {
		p.fail(Cause{By: p.half.Load().by, How: FIN})
	}
	if tell && !t.shut(dst) { // this end is the whole tunnel's, after the frame that comes from there
		p.fail(Cause{By: src, How: FIN})
		p.end(0, "")
	}
	if p.order.Load() != nil {
		t.closeStep(now)
	}
}

// broke handles a failed read or write.
func (t *portable) broke(side Side, err error) {
	t.mu.Lock()
	killed := t.killed
	t.ends[side].broken = true
	t.mu.Unlock()
	if killed {
		return
	}
	t.pair.fail(causeOf(side, err))
	// The other flow may still hold bytes of the broken side. It has a moment for them.
	t.pair.aborting.Store(true)
	t.pair.machine.clock.wake(&t.pair.timer, t.pair.machine.clock.now()+resetWait)
	t.conns[side.other()].SetReadDeadline(past)
}

// poke runs on any goroutine.
func (t *portable) poke() {
	p := t.pair
	now := p.machine.clock.now()
	o := p.order.Load()
	if o == nil || p.cut.Load() || t.finished(now) { // without an order it is for the sake of a broken side, whose time is over
		t.kill()
		return
	}
	t.mu.Lock()
	var stalled [2]bool
	for side := range t.ends {
		end := &t.ends[side]
		stalled[side] = end.fin == 0 && end.sent == 0 && now >= o.at+boundaryWait
	}
	t.mu.Unlock()
	for side, conn := range t.conns {
		if stalled[side] {
			conn.SetWriteDeadline(past)
		}
		conn.SetReadDeadline(past)
	}
	t.schedule()
}

// look implements carrier. The upstream's flow is the one that writes to the client.
func (t *portable) look() {
	side, gone := t.pair.vanished(t.pair.machine.clock.now(), func(side Side) ack {
		if tcp, ok := socket(t.conns[side]).(*net.TCPConn); ok {
			return ackBy(tcp)
		}
		return ack{}
	})
	if gone {
		t.broke(side, syscall.ETIMEDOUT)
	}
	t.conns[Upstream].SetReadDeadline(past)
}

// kill makes both goroutines leave at once.
func (t *portable) kill() {
	t.mu.Lock()
	t.killed = true
	t.mu.Unlock()
	for _, conn := range t.conns {
		conn.SetDeadline(past)
	}
}

// leave ends a flow's goroutine. The last one closes the connections.
func (t *portable) leave() {
	t.mu.Lock()
	t.running--
	last, late, ends := t.running == 0, t.late, t.ends
	t.mu.Unlock()
	if !last {
		return
	}
	for side, conn := range t.conns {
		if t.pair.cut.Load() {
			if tcp, ok := socket(conn).(*net.TCPConn); ok {
				if !ends[side].framed {
					tcp.SetLinger(0)
				}
				tcp.Close() // under TLS a Close would wait to send its alert
			}
			continue
		}
		// A side that is alive learns of the other's reset by a reset, once it has what was sent before; one that did not
		// finish in time is reset as well.
		if !ends[side].broken && (late[side] || ends[side^1].broken) {
			reset(conn)
		}
	}
	for _, conn := range t.conns {
		conn.Close()
	}
	t.pair.finish()
}

// reset resets a TCP connection once its send queue is empty.
func reset(conn net.Conn) {
	tcp, ok := socket(conn).(*net.TCPConn)
	if !ok {
		return
	}
	for deadline := time.Now().Add(time.Duration(resetWait)); time.Now().Before(deadline); {
		empty, handled := sendQueueEmpty(tcp)
		if !handled {
			return // an ordinary end, then, so that nothing is lost
		}
		if empty {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	tcp.SetLinger(0)
	tcp.Close() // under TLS a Close would wait to send its alert
}

// closeWrite shuts a connection down for writing, where it can be.
func closeWrite(conn net.Conn) bool {
	for {
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			c.CloseWrite()
			return true
		}
		t, ok := conn.(Transparent)
		if !ok {
			return false
		}
		conn = t.Transparent()
	}
}

var past = time.Unix(1, 0)

// causeOf reads the cause out of a failed read from or write to a side.
func causeOf(side Side, err error) Cause {
	var errno syscall.Errno
	errors.As(err, &errno)
	c := Cause{By: side, How: WriteError, Errno: errno}
	switch errno {
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		c.How = RST
	case syscall.ETIMEDOUT:
		c.How = Timeout
	}
	return c
}
