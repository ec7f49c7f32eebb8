package splice

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Engine carries tunnels. Its zero value is ready to use. It starts with its first tunnel and ends a tenth of a second
// after its last: without tunnels it holds no goroutine and no descriptor. Its fields are read when it starts.
type Engine struct {
	// PipeSize is the size in bytes of the pipes large payload is moved through. Zero means 256 KiB.
	// 1 MiB spends less processor time yet; it is the most an unprivileged process may have
	// (/proc/sys/fs/pipe-max-size). A pipe that turns out smaller than 64 KiB is not used.
	PipeSize int

	// MaxPipes is how many pipes there may be at once, each costing two descriptors and up to PipeSize of kernel
	// memory. Zero means 64; negative means none: everything is copied.
	MaxPipes int

	// KeepAlive is set on the client's connection, if that is TCP; the upstream's is its dialer's to set. Where its
	// fields are zero, a connection is probed after 60 s of silence, every 15 s, and given up after 4 probes. Negative
	// Idle leaves connections as they are.
	KeepAlive net.KeepAliveConfig

	// Portable carries all tunnels by goroutines that copy, as tunnels over TLS are carried anyway. It is there
	// for tests and comparisons.
	Portable bool

	// Logger hears what costs the fast path, each reason once, on the goroutines that carry tunnels: it must not block.
	// Nil means slog.Default().
	Logger *slog.Logger

	told    sync.Map // reasons that Logger has heard
	mu      sync.Mutex
	tunnels int
	machine *machine    // nil while there is no tunnel
	rest    *time.Timer // ends it
}

// restTime is how long the machine is kept without tunnels. Where they come and go one by one, as tabs of a workspace
// do that are refused late, starting it for each took nearly a tenth of a handshake's processor time.
const restTime = 100 * time.Millisecond

// Config describes one tunnel.
type Config struct {
	// Client and Upstream are the two connections. The engine owns them from Start on and closes them.
	//
	// A connection that only wraps another without touching its bytes should implement Transparent,
	// else the tunnel is carried by the portable pump.
	Client, Upstream net.Conn

	// FromClient and FromUpstream are bytes that have been read from a side already and not yet written to
	// the other. They go first. The engine copies them before Start returns.
	FromClient, FromUpstream []byte

	// Opaque carries bytes that are not WebSocket frames, or not to be looked at: no messages are counted, any
	// byte is activity, and no Close frame is sent.
	Opaque bool

	// ActivitySize is the payload, in bytes, under which a message is not activity. Zero counts all.
	ActivitySize int

	IdleTimeout   time.Duration // without a byte either way; zero means none
	StallTimeout  time.Duration // without a byte being taken by a side there are some for; zero means none
	LifeTimeout   time.Duration // since Start; zero means none
	AckTimeout    time.Duration // without an acknowledgement by a side's kernel, of what was sent to it, on Linux; zero means none
	LingerTimeout time.Duration // without a byte after one side has ended; zero means 30 s

	// PingEvery is how long nothing may come from the client until it is sent a ping. When nothing comes for another
	// PongTimeout then (zero: PingEvery), the tunnel ends. Zero means no pings, and opaque tunnels get none.
	PingEvery, PongTimeout time.Duration

	// Ended is called exactly once, when both connections are closed. It must not block.
	// It may be called before Start returns.
	Ended func(End)
}

// Transparent is a connection that wraps another and leaves its bytes alone: to count connections, say. The engine
// reads and writes what Transparent returns, without the wrapper taking notice, and at the end
// closes the wrapper.
type Transparent interface {
	net.Conn
	Transparent() net.Conn
}

// Start begins to carry a tunnel and returns at once.
func (e *Engine) Start(c Config) *Pair {
	m := e.enter()
	p := newPair(m, c)
	e.keepAlive(c.Client)
	if !m.loops.carry(p, c) {
		carryPortable(p, c)
	}
	return p
}

// Tunnels returns how many tunnels are open.
func (e *Engine) Tunnels() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tunnels
}

// enter counts a tunnel in and starts the machine if it does not run.
func (e *Engine) enter() *machine {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tunnels++
	if e.machine == nil {
		e.machine = startMachine(e)
	}
	return e.machine
}

// leave counts a tunnel out. The machine is stopped some time after the last one.
func (e *Engine) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tunnels--; e.tunnels > 0 {
		return
	}
	if e.rest == nil {
		e.rest = time.AfterFunc(restTime, e.stopUnused)
	} else {
		e.rest.Reset(restTime)
	}
}

func (e *Engine) stopUnused() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tunnels == 0 && e.machine != nil {
		e.machine.stop()
		e.machine = nil
	}
}

func (e *Engine) pipeSize() int {
	if e.PipeSize > 0 {
		return e.PipeSize
	}
	return 256 << 10
}

func (e *Engine) maxPipes() int {
	if e.MaxPipes != 0 {
		return max(e.MaxPipes, 0)
	}
	return 64
}

func (e *Engine) keepAlive(client net.Conn) {
	tcp, ok := socket(client).(*net.TCPConn)
	k := e.KeepAlive
	if !ok || k.Idle < 0 {
		return
	}
	k.Enable = true
	if k.Idle == 0 {
		k.Idle = 60 * time.Second
	}
	if k.Interval == 0 {
		k.Interval = 15 * time.Second
	}
	if k.Count == 0 {
		k.Count = 4
	}
	tcp.SetKeepAliveConfig(k)
}

func (e *Engine) logger() *slog.Logger {
	if e.Logger != nil {
		return e.Logger
	}
	return slog.Default()
}

// machine is what a running engine consists of.
type machine struct {
	engine  *Engine
	clock   *clock
	loops   *loops       // nil where there is only the portable pump
	pending atomic.Int64 // bytes copied for slow receivers
	buffers buffers      // of the portable pump
}

func startMachine(e *Engine) *machine {
	m := &machine{engine: e, clock: startClock()}
	if !e.Portable {
		m.loops = startLoops(m)
	}
	return m
}

func (m *machine) stop() {
	m.clock.stop()
	m.loops.stop()
}

// copying notes why a tunnel is carried without the fast path.
func (m *machine) copying(reason string) {
	if _, told := m.engine.told.LoadOrStore(reason, true); !told {
		m.engine.logger().Info("slipswitch: tunnels are carried by copying", "reason", reason)
	}
}

// buffers lends the portable pump its large buffers.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

func (b *buffers) take() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

func (b *buffers) give(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
