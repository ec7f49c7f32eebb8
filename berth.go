package slipswitch

import (
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/slipswitch/slipswitch/internal/linger"
)

// Berths are where addresses stand in the eyes of the transports. An
// http.Transport remembers for ever each address that it is asked for until a
// connection to it becomes idle, and strangers can make it ask for as many names
// as a template lets pass. So it is told the number of a berth, which another
// address gets when nothing is left of the one before: no request, no dial and no
// connection. There are as many berths as there have been addresses at one time.
type berths struct {
	mu     sync.Mutex
	taken  map[string]*berth // by address
	all    []*berth          // by number
	vacant []*berth
}

// A berth stands for one address while it is used.
type berth struct {
	name string // host and port, for the transport
	addr string
	uses int // requests, dials and connections
}

// take returns the berth of an address, to be left once.
func (s *berths) take(addr string) *berth {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.taken[addr]
	if b == nil {
		if last := len(s.vacant) - 1; last >= 0 {
			b, s.vacant = s.vacant[last], s.vacant[:last]
		} else {
			b = &berth{name: strconv.Itoa(len(s.all)) + ":80"}
			s.all = append(s.all, b)
		}
		b.addr = addr
		if s.taken == nil {
			s.taken = make(map[string]*berth)
		}
		s.taken[addr] = b
	}
	b.uses++
	return b
}

// takeNamed takes the berth that a transport wants to dial; nil if whoever wanted
// that has left.
func (s *berths) takeNamed(name string) *berth {
	number, _ := strconv.Atoi(strings.TrimSuffix(name, ":80"))
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.all[number]
	if b.uses == 0 {
		return nil
	}
	b.uses++
	return b
}

func (s *berths) leave(b *berth) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.uses--; b.uses == 0 {
		delete(s.taken, b.addr)
		b.addr = ""
		s.vacant = append(s.vacant, b)
	}
}

// A berthed connection is one of a transport's. Unless the upstream ends it, its
// port would be blocked for a minute: where clients abort requests all day, those
// would run out.
type berthed struct {
	net.Conn
	leave func()
	once  sync.Once
	ended atomic.Bool // by the upstream
}

func (c *berthed) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		c.ended.Store(true)
	}
	return n, err
}

func (c *berthed) Close() error {
	c.once.Do(func() {
		if c.ended.Load() {
			c.Conn.Close()
		} else {
			linger.HangUp(c.Conn)
		}
		c.leave()
	})
	return nil
}
