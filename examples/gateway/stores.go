package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
	"github.com/slipswitch/slipswitch/store/filestore"
)

// specs is a flag for stores, each KIND:WHERE or memory. It may be repeated.
type specs []string

func (s *specs) String() string { return strings.Join(*s, " ") }

// Set adds stores, separated by spaces.
func (s *specs) Set(list string) error {
	for spec := range strings.FieldsSeq(list) {
		kind, where, _ := strings.Cut(spec, ":")
		if _, known := openers[kind]; !known || (where == "") != (kind == "memory") {
			return fmt.Errorf("%q must be memory, bolt:FILE, file:DIRECTORY or etcd:URL[,URL…][?OPTIONS][#PREFIX]", spec)
		}
		*s = append(*s, spec)
	}
	return nil
}

// dataFile is a flag for the most common store.
type dataFile struct{ *specs }

// Set adds a file. An empty name adds none.
func (d dataFile) Set(file string) error {
	if file != "" {
		*d.specs = append(*d.specs, "bolt:"+file)
	}
	return nil
}

func (d dataFile) String() string { return "" }

// A closer is a store that this program must close.
type closer interface {
	store.Store
	Close() error
}

// openers open stores, by kind.
var openers = map[string]func(where string) (closer, error){
	"bolt": func(file string) (closer, error) { return boltstore.Open(file) },
	"etcd": openEtcd,
	"file": func(directory string) (closer, error) { return filestore.Open(directory) },

	"memory": func(string) (closer, error) { return new(memory), nil },
}

// memory is a store that ends with the process.
type memory struct{ store.Memory }

func (*memory) Close() error { return nil }

// stores are the sources of the routes. The admin API writes to the first one.
// The owners of the others must differ from those of the first.
type stores struct {
	open  []closer
	syncs []*store.Sync
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// openStores opens each store and fills the router from it. It waits a little for
// a store that cannot be reached at once; after that the gateway is not ready
// yet. When start ends, it waits no longer.
func openStores(start context.Context, settings *settings, router *slipswitch.Router, log *slog.Logger) (*stores, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stores{stop: cancel}
	for i, spec := range settings.stores {
		kind, where, _ := strings.Cut(spec, ":")
		opened, err := openers[kind](where)
		if errors.Is(err, boltstore.ErrLocked) {
			wait := settings.drainDelay + settings.drainWindow
			log.Info("waiting for another process to release the routes, such as a gateway that drains", "store", spec, "for", wait.String())
			for end := time.Now().Add(wait); errors.Is(err, boltstore.ErrLocked) && time.Now().Before(end) && start.Err() == nil; {
				opened, err = openers[kind](where)
			}
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("-store %s: %w", spec, err)
		}
		sync := &store.Sync{Source: opened, Router: router, Name: spec, Gateway: settings.name, MaxStale: settings.maxStale, Logger: log}
		if i > 0 { // its owners are distinct, whatever names the store has for them
			sync.Owner = func(name string) *slipswitch.Owner {
				return &slipswitch.Owner{Name: strings.TrimSuffix(spec+" "+name, " ")}
			}
		}
		s.open, s.syncs = append(s.open, opened), append(s.syncs, sync)
		s.ended.Go(func() { sync.Run(ctx) })
		soon, done := context.WithTimeout(start, 5*time.Second)
		sync.Wait(soon, 0) // one after the other: if two of them hold the same route, the first wins
		done()
	}
	return s, nil
}

// handler answers 503 while the routes are older than -max-stale allows.
func (s *stores) handler(next http.Handler) http.Handler {
	for _, sync := range s.syncs {
		next = sync.Handler(next)
	}
	return next
}

// admin returns the stores for the admin API.
func (s *stores) admin() []admin.Store {
	all := make([]admin.Store, len(s.syncs))
	for i, sync := range s.syncs {
		all[i] = sync
	}
	return all
}

// close releases the stores. The router keeps its routes.
func (s *stores) close() {
	s.stop()
	s.ended.Wait()
	for _, opened := range s.open {
		opened.Close()
	}
}
