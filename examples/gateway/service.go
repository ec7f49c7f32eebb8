package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/examples/internal/socket"
)

// A service is a server for operators: the admin API, or probes.
type service struct {
	http.Server
	name, flag, address string
}

func newService(name, flag, address string, handler http.Handler, log *slog.Logger) *service {
	s := &service{name: name, flag: flag, address: address}
	s.Handler, s.ReadHeaderTimeout, s.ReadTimeout = handler, 10*time.Second, time.Minute
	s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelInfo)
	return s
}

// start serves in a goroutine of its own, and sends to failed when that ends.
func (s *service) start(log *slog.Logger, failed chan<- error) error {
	listener, err := listen(s.address)
	if err != nil {
		return fmt.Errorf("-%s: %w", s.flag, err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && s.flag == "admin" && !tcp.IP.IsLoopback() {
		log.Warn("the admin API can be reached from other machines", "address", tcp.String())
	}
	go func() { failed <- s.Serve(listener) }()
	log.Info("serving "+s.name, "address", listener.Addr().String())
	return nil
}

// listen opens host:port or unix:PATH.
func listen(address string) (net.Listener, error) {
	if path, ok := socketPath(address); ok {
		return socket.Listen(path)
	}
	return net.Listen("tcp", address)
}

func socketPath(address string) (path string, ok bool) { return strings.CutPrefix(address, "unix:") }
