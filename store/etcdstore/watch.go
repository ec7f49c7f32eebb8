package etcdstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/slipswitch/slipswitch/store"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// page is the number of keys that are read at once.
const page = 2000

// timeLayout is the layout of times of use. It has a fixed width, so that they
// sort.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// A watch is one run of Watch. The client silently continues an etcd watch across
// reconnects, even to a cluster that was restored to before the revision that the
// watch waits for. So every few seconds the watch asks the cluster for its
// identity and revision. If the cluster is ahead, it then asks the etcd watch for
// its progress. Either answer is a heartbeat.
type watch struct {
	*Store
	at   store.Position
	term uint64 // the latest raft term seen
}

// Watch implements [store.Source]. A revision that the cluster has compacted
// away is answered with a full batch.
func (s *Store) Watch(ctx context.Context, from store.Position) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		w := &watch{Store: s}
		err := w.run(ctx, from, func(b store.Batch) bool { return yield(b, nil) })
		if err != nil && ctx.Err() == nil {
			yield(store.Batch{}, err)
		}
	}
}

// run yields batches until yield returns false. Otherwise it returns why it ends.
func (w *watch) run(ctx context.Context, from store.Position, yield func(store.Batch) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	head, err := w.head(ctx)
	if err != nil {
		return err
	}
	w.term = head.RaftTerm
	first := store.Batch{Position: from}
	if now := w.position(head); from.Identity != now.Identity || from.Revision == 0 || from.Revision > now.Revision {
		if first, err = w.full(ctx); err != nil {
			return err
		}
	}
	for {
		w.at = first.Position
		if !yield(first) {
			return nil
		}
		err := w.follow(ctx, yield)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return err
		}
		if first, err = w.full(ctx); err != nil {
			return err
		}
	}
}

// follow yields the changes after the position of the watch.
func (w *watch) follow(ctx context.Context, yield func(store.Batch) bool) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := w.Client.Watch(ctx, w.prefix()+watched, clientv3.WithPrefix(), clientv3.WithRev(int64(w.at.Revision)+1))
	tick := time.NewTicker(w.check())
	defer tick.Stop()
	type answer struct {
		head *etcdserverpb.ResponseHeader
		err  error
	}
	var answers chan answer // while the cluster is asked
	for {
		select {
		case response, more := <-changes:
			if !more {
				return w.failure(cmp.Or(ctx.Err(), errors.New("the watch has ended")))
			}
			b, err := w.batch(response)
			if err != nil {
				return err
			}
			if !yield(b) {
				return nil
			}
		case <-tick.C:
			if answers == nil {
				asked := make(chan answer, 1)
				answers = asked
				go func() {
					head, err := w.head(ctx)
					asked <- answer{head, err}
				}()
			}
		case a := <-answers:
			answers = nil
			if a.err != nil {
				return a.err
			}
			if err := w.same(a.head); err != nil {
				return err
			}
			// etcd reports no progress to a watch from a future revision,
			// but then there was none.
			if uint64(a.head.Revision) == w.at.Revision {
				if !yield(store.Batch{Position: w.at}) {
					return nil
				}
			} else if err := w.Client.RequestProgress(ctx); err != nil {
				return w.failure(err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// batch returns the batch for a response of the watch.
func (w *watch) batch(response clientv3.WatchResponse) (store.Batch, error) {
	if err := response.Err(); err != nil {
		return store.Batch{}, w.failure(err)
	}
	if id := w.position(response.Header).Identity; id != w.at.Identity {
		return store.Batch{}, w.replaced(id)
	}
	b := store.Batch{Position: w.at}
	for _, event := range response.Events {
		b.Revision = max(b.Revision, uint64(event.Kv.ModRevision))
		w.add(&b, event.Kv, event.Type == mvccpb.Event_DELETE)
	}
	if response.IsProgressNotify() {
		b.Revision = max(b.Revision, uint64(response.Header.Revision))
	}
	w.at = b.Position
	return b, nil
}

// same returns an error unless the cluster is the same as before, and not behind
// an earlier answer. (The responses of a watch prove nothing: they come from one
// member, which may lag.)
func (w *watch) same(head *etcdserverpb.ResponseHeader) error {
	now := w.position(head)
	switch {
	case now.Identity != w.at.Identity:
		return w.replaced(now.Identity)
	case now.Revision < w.at.Revision:
		return w.failure(fmt.Errorf("the cluster is back at revision %d from %d", now.Revision, w.at.Revision))
	case head.RaftTerm < w.term:
		return w.failure(fmt.Errorf("the cluster is back at term %d from %d", head.RaftTerm, w.term))
	}
	w.term = max(w.term, head.RaftTerm)
	return nil
}

func (w *watch) replaced(by string) error {
	return w.failure(fmt.Errorf("another cluster, %s, has taken the place of %s", by, w.at.Identity))
}

// head asks the cluster, and not just one member, for its revision.
func (s *Store) head(ctx context.Context) (*etcdserverpb.ResponseHeader, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	response, err := s.Client.Get(ctx, s.prefix()+lastKey)
	if err != nil {
		return nil, s.failure(err)
	}
	return response.Header, nil
}

func (s *Store) position(head *etcdserverpb.ResponseHeader) store.Position {
	return store.Position{Identity: fmt.Sprintf("%x%s", head.ClusterId, s.prefix()), Revision: uint64(head.Revision)}
}

// full returns all keys at one revision, as a full batch.
func (s *Store) full(ctx context.Context) (store.Batch, error) {
	for {
		b, err := s.pages(ctx)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return b, s.failure(err)
		}
	}
}

// pages reads all keys, page by page. Meanwhile the revision may be compacted.
func (s *Store) pages(ctx context.Context) (store.Batch, error) {
	var all []*mvccpb.KeyValue
	b := store.Batch{Full: true}
	from, end := s.prefix()+watched, clientv3.GetPrefixRangeEnd(s.prefix()+watched)
	for {
		response, err := s.page(ctx, from, end, int64(b.Revision))
		if err != nil {
			return b, err
		}
		if b.Revision == 0 {
			b.Position = s.position(response.Header)
		}
		all = append(all, response.Kvs...)
		if !response.More {
			break
		}
		from = string(all[len(all)-1].Key) + "\x00"
	}
	slices.SortStableFunc(all, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
	for _, kv := range all {
		s.add(&b, kv, false)
	}
	return b, nil
}

func (s *Store) page(ctx context.Context, from, end string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	return s.Client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
}

// add adds the entry for a key to a batch.
func (s *Store) add(b *store.Batch, kv *mvccpb.KeyValue, deleted bool) {
	etcdKey := string(kv.Key)
	switch etcdKey {
	case s.prefix() + lastKey:
		return
	case s.prefix() + confirmedKey:
		revision, err := strconv.ParseUint(string(kv.Value), 10, 64)
		if err == nil && revision <= uint64(kv.ModRevision) { // a later one is another cluster's
			b.Confirmed = max(b.Confirmed, revision)
		}
		return
	}
	owner, key, active, err := s.parseKey(etcdKey)
	switch {
	case active:
		at, timeErr := time.Parse(timeLayout, string(kv.Value))
		if err == nil && timeErr == nil && !deleted {
			b.LastUses = append(b.LastUses, store.LastUse{Owner: owner, Key: key, At: at})
		}
	case deleted:
		b.Entries = append(b.Entries, store.Entry{Owner: owner, Key: key, Where: etcdKey, Revision: uint64(kv.ModRevision)})
	case err != nil:
		b.Entries = append(b.Entries, store.Entry{Owner: owner, Where: etcdKey, Err: err})
	default:
		b.Entries = append(b.Entries, store.Decode(owner, key, kv.Value, etcdKey))
	}
}
