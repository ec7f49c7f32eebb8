package http1

import (
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/slipswitch/slipswitch/internal/linger"
)

// Buffers are of two sizes, and grow beyond them only for long headers.
const (
	small = 4 << 10
	large = 32 << 10
)

var (
	smalls = sync.Pool{New: func() any { return new([small]byte) }}
	larges = sync.Pool{New: func() any { return new([large]byte) }}
)

func borrow(size int) []byte {
	if size == small {
		return smalls.Get().(*[small]byte)[:]
	}
	return larges.Get().(*[large]byte)[:]
}

func giveBack(b []byte) {
	switch len(b) {
	case small:
		smalls.Put((*[small]byte)(b))
	case large:
		larges.Put((*[large]byte)(b))
	}
}

// A connection is a connection to an upstream. While it is idle it belongs to the
// pool, and then to one Response.
type connection struct {
	net.Conn
	socket   syscall.RawConn // nil: it cannot be looked at without waiting
	tcp      *net.TCPConn    // under TLS, too; nil: it is none
	secure   bool            // reads and writes go through another layer
	upgrade  bool            // the upstream was asked to switch protocols
	answered bool            // by a final response
	dated    bool            // has a read deadline, maybe one that has passed
	bounded  bool            // has a write deadline

	// What has been read is buf[r:w]. The buffer is borrowed when bytes have come,
	// and given back when they are gone.
	buf  []byte
	r, w int
	size int // of the next buffer; zero: small

	into   []byte // what readable reads into; nil: buf
	n      int
	err    error
	state  state
	broken error // which a look has found, and no read will find again

	onReadable func(fd uintptr) bool // the methods, bound once
	onCount    func(fd uintptr) bool
	onPeek     func(fd uintptr)

	pooled // what the pool knows of it
}

func newConn(nc net.Conn) *connection {
	c := &connection{Conn: nc}
	under := linger.Socket(nc)
	_, c.secure = nc.(interface{ NetConn() net.Conn })
	c.tcp, _ = under.(*net.TCPConn)
	switch s := under.(type) {
	case *net.TCPConn:
		c.socket = rawConn(s)
	case *net.UnixConn:
		c.socket = rawConn(s)
	}
	c.onReadable, c.onCount, c.onPeek = c.readable, c.count, c.peek
	return c
}

func rawConn(s syscall.Conn) syscall.RawConn {
	if !canPeek {
		return nil
	}
	socket, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return socket
}

// setReadDeadline sets or, with the zero time, removes one.
func (c *connection) setReadDeadline(t time.Time) {
	if c.dated || !t.IsZero() {
		c.dated = !t.IsZero()
		c.SetReadDeadline(t)
	}
}

func (c *connection) setWriteDeadline(timeout time.Duration) {
	if c.bounded || timeout > 0 {
		c.bounded = timeout > 0
		var t time.Time
		if c.bounded {
			t = time.Now().Add(timeout)
		}
		c.SetWriteDeadline(t)
	}
}

func (c *connection) buffered() int { return c.w - c.r }

// receive waits until bytes have come, and reads them into p or, if that is
// nil, behind those in the buffer.
func (c *connection) receive(p []byte) (int, error) {
	if c.socket == nil || c.secure {
		if p != nil {
			return c.Conn.Read(p)
		}
		room := c.space()
		n, err := c.Conn.Read(room)
		c.filled(n, room)
		return n, err
	}
	if c.broken != nil {
		return 0, c.broken
	}
	c.into = p
	err := c.socket.Read(c.onReadable)
	c.into = nil
	if err != nil {
		return 0, err
	}
	return c.n, c.err
}

// filled takes note of what has come into the buffer. Of a connection that
// fills one the next may be large.
func (c *connection) filled(n int, room []byte) {
	c.w += n
	c.size = small
	if n > len(room)/2 {
		c.size = large
	}
	c.trim()
}

// readable reads what is there, and reports whether there was something.
func (c *connection) readable(fd uintptr) bool {
	p := c.into
	if p == nil {
		p = c.space()
	}
	n, again, err := tryRead(fd, p)
	c.n, c.err = n, err
	if again {
		if c.into == nil {
			c.trim()
		}
		return false
	}
	if c.into == nil {
		c.filled(n, p)
	}
	return true
}

// await waits until bytes have come, and returns how many, up to most. They can
// be read without waiting.
func (c *connection) await(most int) (int, error) {
	if c.broken != nil {
		return 0, c.broken
	}
	c.n = most
	if err := c.socket.Read(c.onCount); err != nil {
		return 0, err
	}
	return c.n, c.err
}

func (c *connection) count(fd uintptr) bool {
	n, again, err := countReadable(fd, c.n)
	if again {
		return false
	}
	c.n, c.err = n, err
	return true
}

// space returns room behind what is in the buffer.
func (c *connection) space() []byte {
	switch {
	case c.buf == nil:
		c.buf = borrow(max(c.size, small))
	case c.w < len(c.buf):
	case c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	default:
		size := 2 * len(c.buf)
		if len(c.buf) == small {
			size = large
		}
		grown := make([]byte, size)
		copy(grown, c.buf)
		giveBack(c.buf)
		c.buf = grown
	}
	return c.buf[c.w:]
}

// trim gives back an empty buffer.
func (c *connection) trim() {
	if c.r == c.w && c.buf != nil {
		giveBack(c.buf)
		c.buf, c.r, c.w = nil, 0, 0
	}
}

// A state is what can be said of a connection without waiting.
type state uint8

const (
	quiet   state = iota // open, and nothing to read
	pending              // there is something to read
	ended                // the upstream has closed it, or it is broken
)

func (c *connection) peek(fd uintptr) { c.state, c.broken = peek(fd) }

// look tells whether something can be read.
func (c *connection) look() state {
	if c.socket.Control(c.onPeek) != nil {
		return ended
	}
	return c.state
}

// unseen is how long a read waits that finds out whether a connection is still
// quiet, where it cannot be looked at.
const unseen = 100 * time.Microsecond

// isQuiet reports whether an idle connection may be used: it is open, and the
// upstream has sent nothing unasked.
func (c *connection) isQuiet() bool {
	if c.socket != nil {
		return c.look() == quiet
	}
	return c.isSilent(time.Now().Add(unseen))
}

// isSilent reports whether nothing can be read up to a time. With a time that
// has passed it only looks at what a layer has read ahead.
func (c *connection) isSilent(until time.Time) bool {
	var b [1]byte
	c.setReadDeadline(until)
	n, err := c.Conn.Read(b[:])
	timeout, ok := err.(net.Error)
	return n == 0 && ok && timeout.Timeout()
}

// reset ends a connection at once. After a mere FIN of ours its port would be taken
// for a minute. Of TLS nothing more is sent: somebody may just be writing.
func (c *connection) reset() {
	linger.HangUp(linger.Socket(c.Conn))
	c.Conn.Close()
}
