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
)

// A server is one address with a handler behind it.
type server struct {
	http.Server
	name     string
	address  address
	listener net.Listener
}

// listen opens the address. A socket that a process before has left is removed;
// one that somebody answers at is not.
func (s *server) listen() (err error) {
	if s.address.socket != "" {
		if conn, err := net.Dial("unix", s.address.socket); err == nil {
			conn.Close()
			return fmt.Errorf("%s: %s is in use by another process", s.name, s.address)
		} else if info, err := os.Stat(s.address.socket); err == nil && info.Mode()&os.ModeSocket != 0 {
			os.Remove(s.address.socket)
		}
	}
	if s.listener, err = net.Listen(s.address.network(), s.address.String()); err != nil {
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

// run serves until a signal comes and all has ended, or a second one comes.
func (s *standIn) run(signals <-chan os.Signal) error {
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

// shutDown lets requests and sockets end within the window.
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

// close lets go of what was opened.
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
