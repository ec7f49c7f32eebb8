package etcdstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// gatewayTTL is how long a gateway that is out of contact counts as alive, in
// seconds.
const gatewayTTL = 10

// Confirm is as [store.SharedStore] says.
func (s *Store) Confirm(ctx context.Context, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	_, err := s.Client.Put(ctx, s.prefix()+confirmedKey, strconv.FormatUint(revision, 10))
	return failure(err)
}

// WaitAll is as [store.SharedStore] says. A gateway that is out of contact
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
			return fmt.Errorf("%w: etcd: lost contact", store.ErrUnavailable)
		case <-ctx.Done():
			return fmt.Errorf("%w: %d gateways have not got revision %d yet", ctx.Err(), len(behind), revision)
		}
	}
	return nil
}

// Join is as [store.SharedStore] says. What revision the gateway has is written
// only when somebody waits for it.
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
	wanted := make(map[string]uint64) // by those who wait
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
			if has > revision {
				told = revision // a restored cluster counts anew
			}
			has = revision
		case change := <-changes:
			if err := change(); err != nil {
				return err
			}
		case <-lease.lost:
			return fmt.Errorf("%w: etcd: lost contact", store.ErrUnavailable)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) put(ctx context.Context, key string, revision uint64, lease clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	_, err := s.Client.Put(ctx, s.prefix()+key, strconv.FormatUint(revision, 10), clientv3.WithLease(lease))
	return failure(err)
}

// list calls back for each key of a directory that there is, and returns a
// channel of functions that do so for what changes.
func (s *Store) list(ctx context.Context, dir string, key func(key string, revision uint64, gone bool)) (<-chan func() error, error) {
	get, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	response, err := s.Client.Get(get, s.prefix()+dir, clientv3.WithPrefix())
	if err != nil {
		return nil, failure(err)
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
				return failure(response.Err())
			}
			select {
			case changes <- change:
			case <-ctx.Done():
			}
		}
	}()
	return changes, nil
}

// A leased is a lease that is kept alive until its context ends.
type leased struct {
	id   clientv3.LeaseID
	lost <-chan struct{} // closed when it is not kept alive any more
}

func (s *Store) lease(ctx context.Context, seconds int64) (leased, error) {
	grant, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	response, err := s.Client.Grant(grant, seconds)
	if err != nil {
		return leased{}, failure(err)
	}
	alive, err := s.Client.KeepAlive(ctx, response.ID)
	if err != nil {
		return leased{}, failure(err)
	}
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		for range alive {
		}
	}()
	return leased{response.ID, lost}, nil
}

// revoke ends a lease, and what is bound to it, now rather than when it runs
// out, if the cluster can be reached.
func (s *Store) revoke(id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.Client.Revoke(ctx, id)
}

// Register keeps routes in the store for as long as the context lives: for a
// workspace's agent, whose routes shall go when it dies. They are bound to a
// lease of so many seconds, at least; if the contact was lost for longer, they
// are written again. When the context ends, they are deleted, and its error is
// returned. Any other error is about the routes, and returned at once.
func (s *Store) Register(ctx context.Context, ttl time.Duration, owner string, routes ...slipswitch.Route) error {
	changes := make([]slipswitch.Change, len(routes))
	for i := range routes {
		changes[i].Put = &routes[i]
	}
	for ctx.Err() == nil {
		err := s.register(ctx, ttl, owner, changes)
		if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// register returns when the lease is lost or the context has ended.
func (s *Store) register(ctx context.Context, ttl time.Duration, owner string, changes []slipswitch.Change) error {
	lease, err := s.lease(ctx, max(int64((ttl+time.Second-1)/time.Second), 1))
	if err != nil {
		return err
	}
	defer s.revoke(lease.id)
	if _, err := s.write(ctx, owner, slices.Clone(changes), lease.id); err != nil {
		return err
	}
	<-lease.lost
	return nil
}
