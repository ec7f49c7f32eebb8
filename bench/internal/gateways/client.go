package gateways

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// The load generator speaks HTTP itself: net/http's client would take more than
// some of the gateways.

const host = "ide.example.com"

// sources counts the connections made: each is from one of many addresses, so
// that there are ports enough.
var sources atomic.Uint32

// dial connects. The connection is closed by a reset, for that leaves nothing
// behind, and when ctx ends.
func dial(ctx context.Context, addr string) (*net.TCPConn, error) {
	n := sources.Add(1)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+n%250))}, Timeout: patience}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn)
	tcp.SetLinger(0)
	if end, ok := ctx.Deadline(); ok {
		tcp.SetDeadline(end)
	}
	return tcp, nil
}

// A client sends requests one after the other over one connection, as long as
// the gateway keeps it.
type client struct {
	addr string
	conn *net.TCPConn
	in   *bufio.Reader
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func request(path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
}

// status sends a request and returns the status of its answer.
func (c *client) status(ctx context.Context, request []byte) (status int, err error) {
	err = c.do(ctx, request, func() (last bool, err error) {
		var length int
		status, length, last, err = readHead(c.in)
		if err == nil && length < 0 {
			err = errors.New("an answer without Content-Length")
		}
		if err == nil {
			_, err = c.in.Discard(length)
		}
		return last, err
	})
	return status, err
}

// do sends a request and calls read for its answer, which returns whether it is
// the connection's last. A connection that the gateway has meanwhile closed is
// made again, once.
func (c *client) do(ctx context.Context, request []byte, read func() (last bool, err error)) error {
	kept := c.conn != nil
	err := c.try(ctx, request, read)
	if err != nil && kept && ctx.Err() == nil {
		err = c.try(ctx, request, read)
	}
	return err
}

func (c *client) try(ctx context.Context, request []byte, read func() (last bool, err error)) error {
	if c.conn == nil {
		conn, err := dial(ctx, c.addr)
		if err != nil {
			return err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	last := true
	_, err := c.conn.Write(request)
	if err == nil {
		last, err = read()
	}
	if last || err != nil {
		c.close()
	}
	return err
}

// readHead reads an answer up to its body.
func readHead(in *bufio.Reader) (status, length int, last bool, err error) {
	length = -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, 0, false, err
		}
		line = bytes.TrimSpace(line)
		switch {
		case first:
			if len(line) < 12 {
				return 0, 0, false, fmt.Errorf("not an answer: %q", line)
			}
			status, _ = strconv.Atoi(string(line[9:12]))
			continue
		case len(line) == 0:
			return status, length, last, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		case len(name) == 10 && bytes.EqualFold(name, []byte("connection")):
			last = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
}

func upgrade(path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
}

// openTunnel returns a connection behind its 101.
func openTunnel(ctx context.Context, addr, path string) (*net.TCPConn, error) {
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err = conn.Write(upgrade(path)); err == nil {
		// Byte by byte would be slow; but the backend says nothing by itself, so
		// there is nothing behind the head.
		var head []byte
		for part := make([]byte, 1<<10); err == nil && !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
			var n int
			n, err = conn.Read(part)
			head = append(head, part[:n]...)
		}
		if err == nil && !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			err = fmt.Errorf("an upgrade was answered with %.100q", head)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// openTunnels opens many, on all routes in turn.
func openTunnels(ctx context.Context, addr string, routes []string, n int) ([]*net.TCPConn, error) {
	conns := make([]*net.TCPConn, n)
	err := inParallel(32, func(worker int) error {
		for i := worker; i < n; i += 32 {
			var err error
			if conns[i], err = openTunnel(ctx, addr, routes[i%len(routes)]+"/socket"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		closeAll(conns)
	}
	return conns, err
}

func closeAll(conns []*net.TCPConn) {
	for _, conn := range conns {
		if conn != nil {
			conn.Close()
		}
	}
}

// exchange sends a message and receives the answer. Both are given, the answer
// only for its size.
func exchange(conn net.Conn, message, answer []byte) error {
	if _, err := conn.Write(message); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, answer)
	return err
}

// ask makes the backend send so many messages.
func ask(conn net.Conn, count, size int) error {
	b := frame(text, 16, true)
	binary.BigEndian.PutUint64(b[len(b)-16:], uint64(count))
	binary.BigEndian.PutUint64(b[len(b)-8:], uint64(size))
	_, err := conn.Write(b)
	return err
}

// inParallel calls f for so many workers, and returns the first error.
func inParallel(workers int, f func(worker int) error) error {
	var all errgroup.Group
	for w := range workers {
		all.Go(func() error { return f(w) })
	}
	return all.Wait()
}

// A pace is an open loop: each worker has its own times to send at, whatever
// became of what it sent before.
type pace struct {
	start time.Time
	every time.Duration // of one worker
	first time.Duration
}

func newPace(start time.Time, rate, worker, workers int) pace {
	return pace{start, time.Second * time.Duration(workers) / time.Duration(rate), time.Second * time.Duration(worker) / time.Duration(rate)}
}

// wait waits for the i-th time, and returns what to count from: now, if it is
// the timer that is late; the time itself, if it is the answer before that was,
// for then somebody would have waited.
func (p pace) wait(i int) time.Time {
	due := p.start.Add(p.first + p.every*time.Duration(i))
	if d := time.Until(due); d > 0 {
		time.Sleep(d)
		return time.Now()
	}
	return due
}
