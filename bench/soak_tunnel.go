package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A tunnel is one as its ends see it.
type tunnel struct {
	id      uint64
	backend *backend
	ends    [2]end // the client, the upstream
	killed  atomic.Bool
	done    chan struct{} // closed when the upstream's end is
}

// An end sends what it makes itself, and receives what the other one makes.
type end struct {
	t              *tunnel
	conn           *net.TCPConn
	sent, received atomic.Int64
	stop           chan struct{} // closed by finish
	finish         func()        // half-closes the connection behind the message that is being sent
}

func (s *soak) newTunnel(b *backend) *tunnel {
	t := &tunnel{id: uint64(s.ids.Add(1)), backend: b, done: make(chan struct{})}
	for i := range t.ends {
		e := &t.ends[i]
		e.t, e.stop = t, make(chan struct{})
		e.finish = sync.OnceFunc(func() { close(e.stop) })
	}
	s.mu.Lock()
	s.known[t.id] = t
	s.mu.Unlock()
	return t
}

func (s *soak) forget(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, t.id)
	delete(s.open, t.id)
}

// keepOpen opens a tunnel, and another when it has ended, and so on.
func (s *soak) keepOpen(ctx context.Context, seat int) {
	for ctx.Err() == nil {
		route := seat % s.routes()
		t := s.newTunnel(s.backends[route%len(s.backends)])
		s.busy.RLock()
		in, sends, err := s.dial(ctx, t, route)
		s.busy.RUnlock()
		switch {
		case err == errRefused: // the route or the backend will be back
			s.refused.Add(1)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		case err != nil && ctx.Err() == nil:
			s.fail("opening tunnel %d: %w", t.id, err)
		case err == nil:
			s.live(ctx, t, in, sends)
		}
		s.forget(t)
	}
}

// errRefused: 404 or 502, as it has to be now and then.
var errRefused = errors.New("refused")

// dial is a client's handshake. A frame follows at once.
func (s *soak) dial(ctx context.Context, t *tunnel, route int) (in *bufio.Reader, sends *stream, err error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+t.id%250))}}
	conn, err := dialer.DialContext(ctx, "tcp", s.gateway.public)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	e := &t.ends[0]
	e.conn = conn.(*net.TCPConn)
	if t.id%4 == 0 {
		e.conn.SetReadBuffer(16 << 10)
	}
	sends = newStream(t.id, 0)
	request := fmt.Sprintf("GET %s/%d HTTP/1.1\r\nHost: ide.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", ownPath(route), t.id, base64.StdEncoding.EncodeToString(make([]byte, 16)))
	if err := s.send(e, sends, request); err != nil {
		return nil, nil, err
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	in = bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, nil, err
	}
	conn.SetReadDeadline(time.Time{})
	switch response.StatusCode {
	case http.StatusSwitchingProtocols:
		return in, sends, nil
	case http.StatusNotFound, http.StatusBadGateway:
		return nil, nil, errRefused
	}
	return nil, nil, errors.New(response.Status)
}

// live is a client's end from the 101 to the end of both, and what has to be
// true then.
func (s *soak) live(ctx context.Context, t *tunnel, in *bufio.Reader, sends *stream) {
	s.opened.Add(1)
	s.mu.Lock()
	s.open[t.id] = t
	s.mu.Unlock()
	if ctx.Err() != nil {
		t.ends[0].finish() // too late for run to have seen it
	}
	s.carry(&t.ends[0], in, sends, newStream(t.id, 1))
	select {
	case <-t.done:
	case <-time.After(patience):
		s.fail("tunnel %d: the upstream's end is open %v after the client's", t.id, patience)
		return
	}
	for i := range t.ends {
		sent, received := t.ends[i].sent.Load(), t.ends[1-i].received.Load()
		s.bytes.Add(received)
		if received > sent || received < sent && !t.killed.Load() {
			s.fail("tunnel %d: %d bytes sent by its end %d, %d received", t.id, sent, i, received)
		}
	}
}

// carry sends and receives until both have ended, and closes.
func (s *soak) carry(e *end, in io.Reader, sends, receives *stream) {
	var both sync.WaitGroup
	both.Go(func() {
		err := s.receive(e, in, receives)
		if err != nil && !e.t.killed.Load() {
			s.fail("tunnel %d, receiving after %d bytes: %w", e.t.id, e.received.Load(), err)
		}
		e.finish()
	})
	for {
		select {
		case <-time.After(time.Duration(rand.ExpFloat64() * float64(4*time.Second))):
			s.busy.RLock()
			err := s.send(e, sends, "")
			s.busy.RUnlock()
			if err == nil {
				continue
			}
			if !e.t.killed.Load() {
				s.fail("tunnel %d, sending after %d bytes: %w", e.t.id, e.sent.Load(), err)
			}
		case <-e.stop:
		}
		break
	}
	e.conn.CloseWrite()
	stuck := time.AfterFunc(patience, func() {
		s.fail("tunnel %d: an end has not received the other's for %v", e.t.id, patience)
		e.conn.Close()
	})
	both.Wait()
	stuck.Stop()
	e.conn.Close()
}

// send sends the next frame, with something else in front of it.
func (s *soak) send(e *end, sends *stream, before string) error {
	header, payload := sends.frame()
	parts := net.Buffers{[]byte(before), header, payload}
	e.conn.SetWriteDeadline(time.Now().Add(patience))
	n, err := parts.WriteTo(e.conn)
	e.sent.Add(max(0, n-int64(len(before))))
	s.messages.Add(1)
	return err
}

// receive reads until the other end's end, and compares. Now and then it takes
// a rest.
func (s *soak) receive(e *end, in io.Reader, receives *stream) error {
	buffer := make([]byte, 16<<10)
	for {
		n, err := in.Read(buffer)
		if !receives.goesOn(buffer[:n]) {
			s.fail("tunnel %d: other bytes than were sent, %d bytes in", e.t.id, e.received.Load())
			e.conn.Close()
			return errors.New("given up")
		}
		e.received.Add(int64(n))
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case rand.IntN(200) == 0:
			time.Sleep(rand.N(time.Second))
		}
	}
}

// endTunnels ends one in a hundred tunnels each second.
func (s *soak) endTunnels(ctx context.Context) {
	tick := time.NewTicker(time.Second * 100 / time.Duration(s.tunnels))
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.killing.Lock()
		if n%max(s.tunnels/10, 1) == 0 { // each ten seconds
			b := s.backends[rand.IntN(len(s.backends))]
			s.died.Add(1)
			b.kill()
			time.Sleep(rand.N(time.Second))
			if err := b.start(); err != nil {
				s.fail("%w", err)
			}
		}
		s.mu.Lock()
		for _, t := range s.open { // any
			t.end(s, rand.IntN(2), rand.IntN(3))
			break
		}
		s.mu.Unlock()
		s.killing.Unlock()
	}
}

// end ends a tunnel at one of its ends: by a reset, by a close, or properly.
func (t *tunnel) end(s *soak, side, how int) {
	e := &t.ends[side]
	if how == 2 {
		e.finish()
		return
	}
	if !t.killed.Swap(true) {
		s.killed.Add(1)
	}
	if how == 0 {
		e.conn.SetLinger(0)
	}
	e.conn.Close()
}
