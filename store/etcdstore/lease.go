package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A leased is a lease that is kept alive until its context ends.
type leased struct {
	id   clientv3.LeaseID
	lost <-chan struct{} // closed when it is no longer kept alive
}

func (s *Store) lease(ctx context.Context, seconds int64) (leased, error) {
	grant, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	response, err := s.Client.Grant(grant, seconds)
	if err != nil {
		return leased{}, s.failure(err)
	}
	alive, err := s.Client.KeepAlive(ctx, response.ID)
	if err != nil {
		return leased{}, s.failure(err)
	}
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		for range alive {
		}
	}()
	return leased{response.ID, lost}, nil
}

// revoke ends a lease, and deletes the keys bound to it, at once rather than when
// it runs out, if the cluster can be reached.
func (s *Store) revoke(id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.Client.Revoke(ctx, id)
}

// Register keeps routes in the store until the context ends: for the agent of a
// workspace, whose routes end with it. The routes are bound to a lease of at least
// ttl. If contact is lost for longer, they are written again. When the context
// ends, Register deletes them and returns its error. Any other error is that of a
// route, and is returned at once.
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
	lease, err := s.lease(ctx, seconds(ttl))
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

// WriteFor implements [store.LeaseStore]. The routes are bound to a lease, which
// lasts for whole seconds. To write them again as they are only renews it.
func (s *Store) WriteFor(ctx context.Context, ttl time.Duration, owner string, changes ...slipswitch.Change) (revision uint64, err error) {
	if i := slices.IndexFunc(changes, func(c slipswitch.Change) bool { return c.Put == nil }); i >= 0 || len(changes) == 0 {
		return 0, fmt.Errorf("etcdstore: change %d must be a put: a deletion has no lease", max(i, 0))
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	if revision, err := s.renew(ctx, seconds(ttl), owner, changes); revision > 0 || err != nil {
		return revision, err
	}
	granted, err := s.Client.Grant(ctx, seconds(ttl))
	if err != nil {
		return 0, s.failure(err)
	}
	if revision, err = s.write(ctx, owner, changes, granted.ID); err != nil && !errors.Is(err, store.ErrUnavailable) {
		s.revoke(granted.ID) // after ErrUnavailable the write may have been made
	}
	return revision, err
}

// renew renews the lease of routes that already stand as they shall, if all have
// one lease of so many seconds. It returns the revision that has them, or 0 if
// there is nothing to renew.
func (s *Store) renew(ctx context.Context, seconds int64, owner string, changes []slipswitch.Change) (revision uint64, err error) {
	keys, err := store.Keys(changes)
	if err != nil {
		return 0, err
	}
	etcdKeys := make([]string, len(keys))
	for i, key := range keys {
		etcdKeys[i] = s.routeKey(owner, key)
	}
	standing, err := s.read(ctx, etcdKeys)
	if err != nil {
		return 0, err
	}
	var lease int64
	for i, c := range changes {
		kv := standing[etcdKeys[i]]
		if same, err := stands(kv, c.Put); err != nil || !same || kv.Lease == 0 || i > 0 && kv.Lease != lease {
			return 0, err
		}
		lease, revision = kv.Lease, max(revision, uint64(kv.ModRevision))
	}
	left, err := s.Client.TimeToLive(ctx, clientv3.LeaseID(lease))
	if err != nil {
		return 0, s.failure(err)
	}
	if left.GrantedTTL != seconds {
		return 0, nil
	}
	if _, err := s.Client.KeepAliveOnce(ctx, clientv3.LeaseID(lease)); errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return 0, nil // it has just run out
	} else if err != nil {
		return 0, s.failure(err)
	}
	return revision, nil
}

// stands reports whether a route is stored as it is.
func stands(kv *mvccpb.KeyValue, route *slipswitch.Route) (bool, error) {
	value, err := store.Encode(route, kv.GetValue())
	return kv != nil && string(kv.Value) == string(value), err
}

// seconds returns the time of a lease: whole seconds, at least one.
func seconds(ttl time.Duration) int64 { return max(int64((ttl+time.Second-1)/time.Second), 1) }
