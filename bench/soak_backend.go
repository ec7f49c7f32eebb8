package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"net"
	"net/http"
	"path"
	"strconv"
)

// A backend is the upstream of some routes.
type backend struct {
	soak     *soak
	address  string
	listener net.Listener
}

func (b *backend) start() (err error) {
	if b.listener, err = net.Listen("tcp", b.address); err != nil {
		return err
	}
	go func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go b.serve(conn.(*net.TCPConn))
		}
	}(b.listener)
	return nil
}

// kill does what a process's death does.
func (b *backend) kill() {
	b.listener.Close()
	b.soak.mu.Lock()
	defer b.soak.mu.Unlock()
	for _, t := range b.soak.known {
		if t.backend == b && t.ends[1].conn != nil {
			t.end(b.soak, 1, 0)
		}
	}
}

// serve is an upstream's end. A frame follows its 101 at once.
func (b *backend) serve(conn *net.TCPConn) {
	in := bufio.NewReader(conn)
	request, err := http.ReadRequest(in)
	if err != nil {
		conn.Close()
		return
	}
	id, _ := strconv.ParseUint(path.Base(request.URL.Path), 10, 64)
	b.soak.mu.Lock()
	t := b.soak.known[id]
	if t != nil {
		t.ends[1].conn = conn
	}
	b.soak.mu.Unlock()
	if t == nil {
		b.soak.fail("a handshake for no tunnel: %s", request.URL)
		conn.Close()
		return
	}
	defer close(t.done)
	if t.id%8 < 2 {
		conn.SetReadBuffer(16 << 10)
	}
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	sends := newStream(id, 1)
	if err := b.soak.send(&t.ends[1], sends, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n"); err != nil && !t.killed.Load() {
		b.soak.fail("tunnel %d: its 101: %w", id, err)
	}
	b.soak.carry(&t.ends[1], in, sends, newStream(id, 0))
}
