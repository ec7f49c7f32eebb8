package etcdstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Write implements [store.Store]. Of several changes to one key it makes the last.
// It removes a route's lease.
func (s *Store) Write(ctx context.Context, owner string, changes ...slipswitch.Change) (revision uint64, err error) {
	return s.write(ctx, owner, changes, clientv3.NoLease)
}

// write reads the stored routes, whose fields this version may not know, and
// makes all changes in one transaction, if those routes are still the same. A
// change that is already made is left out: if another client changes that route
// meanwhile, it has done so after this batch.
func (s *Store) write(ctx context.Context, owner string, changes []slipswitch.Change, lease clientv3.LeaseID) (revision uint64, err error) {
	keys, err := store.Keys(changes)
	if err != nil {
		return 0, err
	}
	puts := make(map[string]*slipswitch.Route, len(changes)) // nil: a deletion
	var order []string
	for i, c := range changes {
		key := s.routeKey(owner, keys[i])
		if _, again := puts[key]; !again {
			order = append(order, key)
		}
		puts[key] = c.Put
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	for {
		standing, err := s.read(ctx, order)
		if err != nil {
			return 0, err
		}
		var unchanged []clientv3.Cmp
		ops := []clientv3.Op{clientv3.OpPut(s.prefix()+lastKey, "")}
		for _, key := range order {
			route, kv := puts[key], standing[key]
			stands := clientv3.Compare(clientv3.ModRevision(key), "=", kv.GetModRevision())
			if route == nil {
				if kv != nil {
					ops = append(ops, clientv3.OpDelete(key, clientv3.WithRange(key+afterSuffix)))
					unchanged = append(unchanged, stands)
				}
				continue
			}
			value, err := store.Encode(route, kv.GetValue())
			if err != nil {
				return 0, err
			}
			if kv != nil && bytes.Equal(kv.Value, value) && kv.Lease == int64(lease) {
				continue
			}
			ops = append(ops, clientv3.OpPut(key, string(value), clientv3.WithLease(lease)))
			unchanged = append(unchanged, stands)
		}
		if n := len(ops); n > s.maxOps() {
			return 0, fmt.Errorf("%w: to change %d routes needs %d operations; the servers accept %d: divide the batch", store.ErrTooLarge, n-1, n, s.maxOps())
		}
		response, err := s.Client.Txn(ctx).If(unchanged...).Then(ops...).Commit()
		if err != nil {
			return 0, s.failure(err)
		}
		if response.Succeeded {
			return uint64(response.Header.Revision), nil
		}
	}
}

// read returns the values at the keys, at one revision. A missing key has a nil
// value.
func (s *Store) read(ctx context.Context, keys []string) (map[string]*mvccpb.KeyValue, error) {
	standing := make(map[string]*mvccpb.KeyValue, len(keys))
	var revision int64 // 0: now
	for some := range slices.Chunk(keys, s.maxOps()) {
		gets := make([]clientv3.Op, len(some))
		for i, key := range some {
			gets[i] = clientv3.OpGet(key, clientv3.WithRev(revision))
		}
		response, err := s.Client.Txn(ctx).Then(gets...).Commit()
		if err != nil {
			return nil, s.failure(err)
		}
		if revision == 0 {
			revision = response.Header.Revision
		}
		for _, r := range response.Responses {
			for _, kv := range r.GetResponseRange().Kvs {
				standing[string(kv.Key)] = kv
			}
		}
	}
	return standing, nil
}

// Touch implements [store.ActivityStore]. It takes a transaction for each 60
// routes or so.
func (s *Store) Touch(ctx context.Context, activity ...store.LastUse) error {
	for some := range slices.Chunk(activity, max(s.maxOps()/2, 1)) {
		if err := s.touch(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) touch(ctx context.Context, activity []store.LastUse) error {
	latest := make(map[string]time.Time, len(activity))
	for _, a := range activity {
		if key := s.routeKey(a.Owner, a.Key); a.At.After(latest[key]) {
			latest[key] = a.At
		}
	}
	var keys []string
	for key := range latest {
		keys = append(keys, key, key+activeSuffix)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	for {
		standing, err := s.read(ctx, keys)
		if err != nil {
			return err
		}
		var unchanged []clientv3.Cmp
		var ops []clientv3.Op
		for key, at := range latest {
			active, route := key+activeSuffix, standing[key]
			value := at.UTC().Format(timeLayout)
			if route == nil || string(standing[active].GetValue()) >= value {
				continue
			}
			unchanged = append(unchanged, // it ends with the route's lease, if there is one
				clientv3.Compare(clientv3.CreateRevision(key), "=", route.CreateRevision),
				clientv3.Compare(clientv3.ModRevision(active), "=", standing[active].GetModRevision()))
			ops = append(ops, clientv3.OpPut(active, value, clientv3.WithLease(clientv3.LeaseID(route.Lease))))
		}
		if len(ops) == 0 {
			return nil
		}
		response, err := s.Client.Txn(ctx).If(unchanged...).Then(ops...).Commit()
		if err != nil {
			return s.failure(err)
		}
		if response.Succeeded {
			return nil
		}
	}
}
