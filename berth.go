package slipswitch

import (
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/slipswitch/slipswitch/internal/http1"
)

// Berths are where HTTP/2 upstreams stand in the eyes of net/http's transports. An
// http.Transport remembers for ever each address that it is asked for until a
// connection to it becomes idle, and strangers can make it ask for as many names
// as a template lets pass. So it is told the number of a berth, which another
// upstream gets when nothing is left of the one before: no request, no dial and no
// connection. There are as many berths as there have been upstreams at one time.
type berths struct {
	mu     sync.Mutex
	taken  map[http1.Key]*berth
	all    []*berth // by number
	vacant []*berth
}

// A berth stands for one upstream while it is used.
type berth struct {
	name string // host and port, for the transport
	key  http1.Key
	uses int // requests, dials and connections
}

// has reports whether an upstream has a berth.
func (s *berths) has(key http1.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[key] != nil
}

// take returns the berth of an upstream, to be left once.
func (s *berths) take(key http1.Key) *berth {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.taken[key]
	if b == nil {
		if last := len(s.vacant) - 1; last >= 0 {
			b, s.vacant = s.vacant[last], s.vacant[:last]
		} else {
			b = &berth{name: strconv.Itoa(len(s.all)) + ":80"}
			s.all = append(s.all, b)
		}
		b.key = key
		if s.taken == nil {
			s.taken = make(map[http1.Key]*berth)
		}
		s.taken[key] = b
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
		delete(s.taken, b.key)
		b.key = http1.Key{}
		s.vacant = append(s.vacant, b)
	}
}

// A berthed connection leaves its berth when it is closed, if it has one. It stands
// under TLS, since only after the handshake it is known whether it speaks HTTP/2.
type berthed struct {
	net.Conn
	once  sync.Once
	leave func() // nil: it has no berth
}

func (c *berthed) NetConn() net.Conn     { return c.Conn }
func (c *berthed) Transparent() net.Conn { return c.Conn }

func (c *berthed) Close() error {
	err := c.Conn.Close()
	if c.leave != nil {
		c.once.Do(c.leave)
	}
	return err
}
