package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/slipswitch/slipswitch/examples/internal/socket"
)

// A server is an address and its handler.
type server struct {
	http.Server
	name     string
	address  address
	listener net.Listener
}

// listen opens the address.
func (s *server) listen() (err error) {
	if s.address.socket != "" {
		s.listener, err = socket.Listen(s.address.socket)
	} else {
		s.listener, err = net.Listen("tcp", s.address.String())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// serve serves until the server is shut down.
func (s *server) serve() error {
	if s.TLSConfig != nil {
		return s.ServeTLS(s.listener, "", "")
	}
	return s.Serve(s.listener)
}

// run serves until a signal arrives and everything has ended, or a second one
// arrives. SIGHUP does not end it.
func (s *standIn) run(signals, hangups <-chan os.Signal) error {
	defer s.close()
	for _, each := range s.servers {
		if err := each.listen(); err != nil {
			return err
		}
	}
	s.servers[0].listener = s.proxy.Listen(s.servers[0].listener)
	if s.pidFile != "" {
		if err := os.WriteFile(s.pidFile, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
		defer os.Remove(s.pidFile)
	}
	failed := make(chan error, len(s.servers))
	for _, each := range s.servers {
		go func() { failed <- each.serve() }()
		s.log.Info("serving "+each.name, "address", each.listener.Addr().String(), "tls", each.TLSConfig != nil)
	}
	if s.token == "" {
		s.log.Warn("REST API is not authenticated: set CONFIGPROXY_AUTH_TOKEN")
	}
	go s.reloads(hangups)
	select {
	case err := <-failed:
		return err
	case signal := <-signals:
		s.log.Warn("ending", "signal", signal.String())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.shutDown()
	}()
	select {
	case <-ended:
		return nil
	case <-signals:
		return errors.New("ended at once by a second signal")
	}
}

// shutDown gives requests and sockets until the end of the window to end.
func (s *standIn) shutDown() {
	window, cancel := context.WithTimeout(context.Background(), shutdownWindow)
	defer cancel()
	var ending sync.WaitGroup
	for _, each := range s.servers {
		ending.Go(func() {
			if each.Shutdown(window) != nil {
				each.Close()
			}
		})
	}
	if err := s.proxy.Shutdown(window); err != nil {
		s.log.Warn("sockets were cut", "error", err)
	}
	ending.Wait()
}

// close closes the listeners and the storage.
func (s *standIn) close() {
	for _, each := range s.servers {
		if each.listener != nil {
			each.listener.Close()
		}
	}
	if s.storage != nil {
		s.storage.close()
	}
}
