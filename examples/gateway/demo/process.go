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

// A process stands for one that serves: when it is killed, nobody listens at its
// address and all its connections are reset, until it is started again.
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

// start lets it listen and serve.
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
		server.Close() // the demo's end may have missed this one
	}
	p.demo.running.Go(func() {
		if err := server.Serve(processListener{listener, p}); !errors.Is(err, http.ErrServerClosed) {
			p.demo.Log.Error("demo", "error", err)
		}
	})
	return nil
}

// processListener notes the connections it accepts.
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

// kill ends it without a word to anybody.
func (p *process) kill() {
	p.mu.Lock()
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	for _, c := range conns {
		c.SetLinger(0) // so that its end is a reset
	}
	p.close()
	for _, c := range conns {
		c.Close()
	}
}

// close ends it; its sockets end with the demo's context.
func (p *process) close() {
	p.mu.Lock()
	server := p.serve
	p.mu.Unlock()
	server.Close()
}

func (p *process) url() string { return "http://" + p.address }
