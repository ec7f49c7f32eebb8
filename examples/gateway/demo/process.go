package demo

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A process acts like a server process: when it is killed, nothing listens at its
// address, and all its connections are reset, until it is started again.
type process struct {
	demo    *Demo
	handler http.Handler
	address string // host:port; it is the same each time

	mu    sync.Mutex
	serve *http.Server
	conns map[*processConn]struct{}
}

type processConn struct {
	*net.TCPConn
	of *process
}

func (c *processConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.TCPConn.Close()
}

// start starts it.
func (p *process) start() error {
	address := p.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           p.handler,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return p.demo.ctx },
	}
	p.mu.Lock()
	p.address, p.serve, p.conns = listener.Addr().String(), server, make(map[*processConn]struct{})
	p.mu.Unlock()
	if p.demo.ctx.Err() != nil {
		server.Close() // the demo may have ended without seeing this server
	}
	p.demo.running.Go(func() {
		if err := server.Serve(processListener{listener, p}); !errors.Is(err, http.ErrServerClosed) {
			p.demo.Log.Error("demo", "error", err)
		}
	})
	return nil
}

// A processListener keeps the connections that it accepts.
type processListener struct {
	net.Listener
	of *process
}

func (l processListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &processConn{conn.(*net.TCPConn), l.of}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	l.of.conns[c] = struct{}{}
	return c, nil
}

// kill ends it without a Close frame.
func (p *process) kill() {
	p.mu.Lock()
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	for _, c := range conns {
		c.SetLinger(0) // so that closing resets the connection
	}
	p.close()
	for _, c := range conns {
		c.Close()
	}
}

// close ends it. Its sockets end with the context of the demo.
func (p *process) close() {
	p.mu.Lock()
	server := p.serve
	p.mu.Unlock()
	server.Close()
}

func (p *process) url() string { return "http://" + p.address }
