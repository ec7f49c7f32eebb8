package caddyslipswitch

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
)

// drainTime is the time that sockets have when no configuration is left.
const drainTime = 10 * time.Second

// configured is the owner of the routes of configurations. Routes put by REST
// belong to the owner without a name.
var configured = &slipswitch.Owner{Name: "caddy"}

// pool has the shared parts by name, as long as a configuration uses them.
var pool = caddy.NewUsagePool()

// A shared is the common part of the handlers of one name, which survives
// reloads.
type shared struct {
	router  slipswitch.Router
	log     *slog.Logger
	started atomic.Bool // the routes are there

	mu      sync.Mutex
	running []*wants // started configurations: one, or two during a reload
	proxies map[string]*slipswitch.Proxy
	rest    *admin.Handler // of the latest configuration
	data    string
	store   *boltstore.Store // nil: routes by REST are not kept
	sync    *store.Sync
	stop    context.CancelFunc
	synced  chan struct{} // closed when sync has ended
}

func newShared() (caddy.Destructor, error) {
	s := &shared{
		log:     slog.New(currentLog{}),
		proxies: make(map[string]*slipswitch.Proxy),
	}
	s.router.Validate = able
	return s, nil
}

// able refuses settings that no Proxy here supports.
func able(r *slipswitch.Route) error { return new(slipswitch.Proxy).Validate(r) }

// proxy returns the Proxy with these settings, which a Proxy keeps for life. Each
// Proxy, with its sockets, lives as long as the shared part.
func (s *shared) proxy(trusted []netip.Prefix) *slipswitch.Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	settings := fmt.Sprint(trusted)
	p := s.proxies[settings]
	if p == nil {
		p = &slipswitch.Proxy{
			Router:         &s.router,
			TrustedProxies: trusted,
			ErrorHandler:   fail,
			Logger:         s.log,
			TunnelClosed: func(r slipswitch.CloseReport) {
				s.log.Info("socket closed", slog.Any("report", r))
			},
		}
		s.proxies[settings] = p
	}
	return p
}

// begin puts the routes of a configuration into force in one swap. The first
// configuration opens the store.
func (s *shared) begin(w *wants) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.running) > 0 && w.data != s.data {
		return fmt.Errorf("data %q must stay %q: a reload cannot change it", w.data, s.data)
	}
	if err := s.open(w.data); err != nil {
		return err
	}
	if err := s.follow(w); err != nil {
		return err
	}
	s.running = append(s.running, w)
	s.started.Store(true)
	return nil
}

// end removes a configuration that is stopped. If it was the latest, the one
// before it is in force again.
func (s *shared) end(w *wants) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = slices.DeleteFunc(s.running, func(other *wants) bool { return other == w })
	if len(s.running) == 0 {
		return nil
	}
	return s.follow(s.running[len(s.running)-1])
}

// follow replaces the routes of the former configuration. Equal routes are not
// changed.
func (s *shared) follow(w *wants) error {
	if s.rest == nil || s.rest.Proxy != w.proxy {
		s.rest = &admin.Handler{Router: &s.router, Proxy: w.proxy, Open: true, Logger: s.log} // Caddy controls access
		if s.sync != nil {
			s.rest.Stores = []admin.Store{s.sync}
		}
	}
	_, err := s.router.Update(func(tx *slipswitch.Txn) error {
		tx = tx.As(configured)
		tx.Clear()
		for _, route := range w.routes {
			tx.Put(route)
		}
		return nil
	})
	return err
}

// open opens the store and waits for its routes.
func (s *shared) open(data string) error {
	if s.data = data; data == "" || s.store != nil {
		return nil
	}
	var err error
	if s.store, err = boltstore.Open(data); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.synced = cancel, make(chan struct{})
	s.sync = &store.Sync{
		Source: s.store, Router: &s.router, Name: "bolt:" + data, Logger: s.log,
		BrakeTime: -1, // only REST writes to the file, and means its deletions
	}
	go func() {
		defer close(s.synced)
		s.sync.Run(ctx)
	}()
	wait, cancelWait := context.WithTimeout(ctx, drainTime)
	defer cancelWait()
	return s.sync.Wait(wait, 0)
}

// Destruct ends everything when the last configuration has left. It waits for the
// sockets only if the process is about to exit.
func (s *shared) Destruct() error {
	var err error
	if s.store != nil {
		s.stop()
		<-s.synced
		err = s.store.Close()
	}
	var drains sync.WaitGroup
	for _, p := range s.proxies {
		drains.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), drainTime)
			defer cancel()
			p.Shutdown(ctx)
		})
	}
	if caddy.Exiting() {
		drains.Wait()
	}
	return err
}
