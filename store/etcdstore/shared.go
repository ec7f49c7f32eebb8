package etcdstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// gatewayTTL is the time in seconds for which a gateway that is out of contact
// counts as alive.
const gatewayTTL = 10

// Confirm implements [store.SharedStore].
func (s *Store) Confirm(ctx context.Context, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	_, err := s.Client.Put(ctx, s.prefix()+confirmedKey, strconv.FormatUint(revision, 10))
	return s.failure(err)
}

// WaitAll implements [store.SharedStore]. A gateway that is out of contact
// counts for 10 s.
func (s *Store) WaitAll(ctx context.Context, revision uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lease, err := s.lease(ctx, gatewayTTL)
	if err != nil {
		return err
	}
	defer s.revoke(lease.id)
	if err := s.put(ctx, waitsDir+rand.Text(), revision, lease.id); err != nil {
		return err
	}
	behind := make(map[string]bool) // gateways
	changes, err := s.list(ctx, gatewaysDir, func(key string, has uint64, gone bool) {
		if behind[key] = !gone && has < revision; !behind[key] {
			delete(behind, key)
		}
	})
	if err != nil {
		return err
	}
	for len(behind) > 0 {
		select {
		case change := <-changes:
			if err := change(); err != nil {
				return err
			}
		case <-lease.lost:
			return s.failure(errors.New("lost contact"))
		case <-ctx.Done():
			return fmt.Errorf("%w: these gateways do not have revision %d yet: %s", ctx.Err(), revision, s.names(behind))
		}
	}
	return nil
}

// names returns the names of gateways, by their keys.
func (s *Store) names(gateways map[string]bool) string {
	keys := slices.Sorted(maps.Keys(gateways))
	for i, key := range keys {
		keys[i] = strings.TrimPrefix(key, s.prefix()+gatewaysDir)
	}
	return strings.Join(keys, ", ")
}

// Join implements [store.SharedStore]. What revision the gateway has is written
// only when a WaitAll waits for it.
func (s *Store) Join(ctx context.Context, gateway string, revisions <-chan uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var has uint64
	select {
	case has = <-revisions:
	case <-ctx.Done():
		return ctx.Err()
	}
	lease, err := s.lease(ctx, gatewayTTL)
	if err != nil {
		return err
	}
	defer s.revoke(lease.id)
	told := has
	if err := s.put(ctx, gatewaysDir+gateway, told, lease.id); err != nil {
		return err
	}
	wanted := make(map[string]uint64) // by waiter
	changes, err := s.list(ctx, waitsDir, func(key string, revision uint64, gone bool) {
		if wanted[key] = revision; gone {
			delete(wanted, key)
		}
	})
	if err != nil {
		return err
	}
	for {
		for _, revision := range wanted {
			if told < revision && revision <= has {
				told = has
				if err := s.put(ctx, gatewaysDir+gateway, told, lease.id); err != nil {
					return err
				}
			}
		}
		select {
		case revision := <-revisions:
			if has > revision { // the cluster was restored: the watch would wait for the future
				return s.failure(fmt.Errorf("the cluster is back at revision %d from %d", revision, has))
			}
			has = revision
		case change := <-changes:
			if err := change(); err != nil {
				return err
			}
		case <-lease.lost:
			return s.failure(errors.New("lost contact"))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) put(ctx context.Context, key string, revision uint64, lease clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	_, err := s.Client.Put(ctx, s.prefix()+key, strconv.FormatUint(revision, 10), clientv3.WithLease(lease))
	return s.failure(err)
}

// list calls back for each existing key of a directory, and returns a channel of
// functions that do so for later changes.
func (s *Store) list(ctx context.Context, dir string, key func(key string, revision uint64, gone bool)) (<-chan func() error, error) {
	get, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	response, err := s.Client.Get(get, s.prefix()+dir, clientv3.WithPrefix())
	if err != nil {
		return nil, s.failure(err)
	}
	tell := func(kv *mvccpb.KeyValue, gone bool) {
		revision, _ := strconv.ParseUint(string(kv.Value), 10, 64)
		key(string(kv.Key), revision, gone)
	}
	for _, kv := range response.Kvs {
		tell(kv, false)
	}
	changes := make(chan func() error)
	watch := s.Client.Watch(ctx, s.prefix()+dir, clientv3.WithPrefix(), clientv3.WithRev(response.Header.Revision+1))
	go func() {
		for response := range watch {
			change := func() error {
				for _, event := range response.Events {
					tell(event.Kv, event.Type == mvccpb.Event_DELETE)
				}
				return s.failure(response.Err())
			}
			select {
			case changes <- change:
			case <-ctx.Done():
			}
		}
	}()
	return changes, nil
}
