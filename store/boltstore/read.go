package boltstore

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"runtime"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

// Watch implements [store.Source].
func (s *Store) Watch(ctx context.Context, from store.Position) iter.Seq2[store.Batch, error] {
	return s.feed.Watch(ctx, from, s.full)
}

// full returns a batch of everything in the file.
func (s *Store) full() (b store.Batch, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			b = store.Batch{Position: position(tx), Full: true}
			var records []record
			err := tx.Bucket(routesBucket).ForEach(func(k, v []byte) error {
				records = append(records, record{k, v})
				return nil
			})
			if err != nil {
				return err
			}
			slices.SortFunc(records, func(a, b record) int { return cmp.Compare(number(a.value[:8]), number(b.value[:8])) })
			if b.Entries, err = decode(records); err != nil {
				return err
			}
			return tx.Bucket(activityBucket).ForEach(func(k, v []byte) error {
				if owner, key, err := parseID(k); err == nil {
					b.LastUses = append(b.LastUses, store.LastUse{Owner: owner, Key: key, At: time.Unix(0, int64(number(v)))})
				}
				return nil
			})
		})
	})
	if err != nil {
		return store.Batch{}, s.failure(err)
	}
	return b, nil
}

// A record is one of the file. It is valid as long as the transaction.
type record struct{ id, value []byte }

// decode returns the entries of records, in their order. It takes half of the
// time in which a gateway with many routes starts, so it uses all cores.
func decode(records []record) ([]store.Entry, error) {
	entries := make([]store.Entry, len(records))
	share := len(records)/runtime.GOMAXPROCS(0) + 1
	var workers errgroup.Group
	for from := 0; from < len(records); from += share {
		workers.Go(func() error {
			return guard(func() error { // each reads the file
				for i := from; i < min(from+share, len(records)); i++ {
					entries[i] = entry(records[i].id, routeOf(records[i].value))
				}
				return nil
			})
		})
	}
	return entries, workers.Wait()
}

func entry(id, value []byte) store.Entry {
	owner, key, err := parseID(id)
	if err != nil {
		return store.Entry{Owner: owner, Where: string(id), Err: err}
	}
	return store.Decode(owner, key, value, "")
}

// id returns the key of a record in the file.
func id(owner string, key slipswitch.Key) []byte {
	return []byte(owner + "\x00" + key.String())
}

func parseID(id []byte) (owner string, key slipswitch.Key, err error) {
	i := max(bytes.LastIndexByte(id, 0), 0)
	owner = string(id[:i])
	key, err = slipswitch.ParseKey(string(id[min(i+1, len(id)):]))
	return owner, key, err
}

// routeOf returns the route in a record's value; nil if there is no record.
func routeOf(value []byte) []byte {
	if value == nil {
		return nil
	}
	return value[8:]
}
