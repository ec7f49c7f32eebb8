package boltstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	bolt "go.etcd.io/bbolt"
)

// A write is a batch on its way to the disk.
type write struct {
	owner    string
	changes  []slipswitch.Change
	keys     []slipswitch.Key // canonical, of the changes
	ids      [][]byte         // of their records
	activity []store.LastUse

	batch store.Batch   // the result
	err   error         // or why there is none
	done  chan struct{} // closed when it has a batch or an error
}

// Write implements [store.Store]. A full disk is store.ErrUnavailable, until there
// is space again. A batch may have any size. If the context ends while the batch
// is being written, Write waits for that.
func (s *Store) Write(ctx context.Context, owner string, changes ...slipswitch.Change) (revision uint64, err error) {
	keys, err := store.Keys(changes)
	if err != nil {
		return 0, err
	}
	ids := make([][]byte, len(keys))
	for i, key := range keys {
		ids[i] = id(owner, key)
		if n := len(ids[i]); n > bolt.MaxKeySize {
			return 0, fmt.Errorf("boltstore: owner and key of %d bytes; at most %d are possible", n, bolt.MaxKeySize)
		}
	}
	return s.commit(ctx, &write{owner: owner, changes: changes, keys: keys, ids: ids, done: make(chan struct{})})
}

// Touch implements [store.ActivityStore].
func (s *Store) Touch(ctx context.Context, activity ...store.LastUse) error {
	_, err := s.commit(ctx, &write{activity: activity, done: make(chan struct{})})
	return err
}

// commit queues a write, and returns when it is on the disk. The goroutine that
// finds the file free commits everything that is queued. A goroutine for commits
// alone would cost each write two thread switches, a tenth of its time.
func (s *Store) commit(ctx context.Context, w *write) (revision uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, s.failure(err)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, errClosed
	}
	s.queue = append(s.queue, w)
	s.mu.Unlock()
	select {
	case s.committing <- struct{}{}:
		s.commitQueued() // w, too, unless another goroutine has
		<-s.committing
		<-w.done
	case <-w.done:
	case <-ctx.Done():
		s.mu.Lock() // no goroutine may commit it later
		i := slices.Index(s.queue, w)
		if i >= 0 {
			s.queue = slices.Delete(s.queue, i, i+1)
		}
		s.mu.Unlock()
		if i >= 0 {
			return 0, s.failure(ctx.Err())
		}
		<-w.done // another goroutine is committing it
	}
	return w.batch.Revision, w.err
}

// commitQueued commits all queued writes at once. The caller holds committing.
func (s *Store) commitQueued() {
	s.mu.Lock()
	writes := s.queue
	s.queue = nil
	s.mu.Unlock()
	if len(writes) > 0 {
		s.commitTogether(writes)
	}
}

// commitTogether makes one transaction of some writes, and wakes their callers.
// An invalid write is left out. When the transaction returns it has synced data
// and meta page to the disk.
func (s *Store) commitTogether(writes []*write) {
	err := guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			for _, w := range writes {
				if w.batch, w.err = w.apply(tx); w.err != nil {
					w.batch = store.Batch{}
				}
			}
			return nil
		})
	})
	if err != nil {
		s.restate()
	}
	for _, w := range writes {
		switch {
		case err != nil:
			w.batch, w.err = store.Batch{}, s.failure(err)
		case w.err == nil:
			s.feed.Publish(w.batch)
		}
		close(w.done)
	}
}

// restate is called after a failed commit, which may have reached the disk all
// the same. It sends watches what the file has now.
func (s *Store) restate() {
	if b, err := s.full(); err == nil && b.Position != s.feed.Position() {
		s.feed.Publish(b)
	}
}

// apply puts a write into a transaction. On error it has changed nothing.
func (w *write) apply(tx *bolt.Tx) (store.Batch, error) {
	meta, routes, activity := tx.Bucket(metaBucket), tx.Bucket(routesBucket), tx.Bucket(activityBucket)
	values := make([][]byte, len(w.changes))
	for i, c := range w.changes {
		if c.Put != nil {
			var err error
			if values[i], err = store.Encode(c.Put, routeOf(routes.Get(w.ids[i]))); err != nil {
				return store.Batch{}, err
			}
		}
	}
	b := store.Batch{Position: position(tx)}
	b.Revision++
	order := number(meta.Get(orderKey))
	for i, value := range values {
		id, key := w.ids[i], w.keys[i]
		standing := routes.Get(id)
		if value == nil {
			if standing != nil {
				must(routes.Delete(id))
				must(activity.Delete(id))
				b.Entries = append(b.Entries, store.Entry{Owner: w.owner, Key: key})
			}
			continue
		}
		var first []byte
		if standing != nil {
			first = standing[:8]
		} else {
			order++
			first = bytes8(order)
		}
		must(routes.Put(id, append(first[:8:8], value...)))
		b.Entries = append(b.Entries, store.Decode(w.owner, key, value, ""))
	}
	for _, a := range w.activity {
		id := id(a.Owner, a.Key)
		if routes.Get(id) == nil || !a.At.After(time.Unix(0, int64(number(activity.Get(id))))) {
			continue
		}
		must(activity.Put(id, bytes8(uint64(a.At.UnixNano()))))
		b.LastUses = append(b.LastUses, a)
	}
	must(meta.Put(orderKey, bytes8(order)))
	must(meta.Put(revisionKey, bytes8(b.Revision)))
	return b, nil
}

// must panics, which rolls the transaction back. With keys and values as small as
// these, bbolt's Put and Delete do not fail in a sound file.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
