package main

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
	"github.com/slipswitch/slipswitch/store/etcdstore"
	clientv3 "go.etcd.io/etcd/client/v3"
)

type closer interface {
	store.Store
	Close() error
}

// openers open a store, by the kind in --storage-backend.
var openers = map[string]func(where string) (closer, error){
	"bolt": func(file string) (closer, error) { return boltstore.Open(file) },
	"etcd": func(where string) (closer, error) {
		urls, prefix, _ := strings.Cut(where, "#")
		s, err := etcdstore.Dial(clientv3.Config{Endpoints: strings.Split(urls, ",")})
		if err != nil {
			return nil, err
		}
		s.Prefix = prefix
		return s, nil
	},
}

// A storage is a store of routes that outlive the process. It has them as they
// were put; the changes that the options make are in this process only.
type storage struct {
	opened closer
	sync   *store.Sync
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

// openStorage opens a store and fills the router from it. It waits a little for a
// store that cannot be reached, which is then followed as soon as it can.
func openStorage(spec string, router *slipswitch.Router, route func(*slipswitch.Route), log *slog.Logger) (*storage, error) {
	kind, where, _ := strings.Cut(spec, ":")
	opened, err := openers[kind](where)
	if err != nil {
		return nil, err
	}
	name, _ := os.Hostname()
	ctx, cancel := context.WithCancel(context.Background())
	s := &storage{opened: opened, stop: cancel, sync: &store.Sync{
		Source: opened, Router: router, Name: spec, Route: route, Gateway: name, Logger: log,
		BrakeTime: -1, // a hub means each DELETE, however many it sends
	}}
	s.ended.Go(func() { s.sync.Run(ctx) })
	soon, done := context.WithTimeout(ctx, 5*time.Second)
	defer done()
	s.sync.Wait(soon, 0)
	return s, nil
}

func (s *storage) close() {
	s.stop()
	s.ended.Wait()
	s.opened.Close()
}
