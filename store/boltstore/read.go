package boltstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	bolt "go.etcd.io/bbolt"
)

// Watch is as [store.Source] says.
func (s *Store) Watch(ctx context.Context, from store.Position) iter.Seq2[store.Batch, error] {
	return s.feed.Watch(ctx, from, s.full)
}

// full returns a batch of all that the file has.
func (s *Store) full() (b store.Batch, err error) {
	type record struct {
		order uint64
		entry store.Entry
	}
	var records []record
	err = guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			b = store.Batch{Position: position(tx), Full: true}
			err := tx.Bucket(routesBucket).ForEach(func(k, v []byte) error {
				records = append(records, record{number(v[:8]), entry(k, routeOf(v))})
				return nil
			})
			if err != nil {
				return err
			}
			return tx.Bucket(activityBucket).ForEach(func(k, v []byte) error {
				if owner, key, err := parseID(k); err == nil {
					b.Activity = append(b.Activity, store.Activity{Owner: owner, Key: key, At: time.Unix(0, int64(number(v)))})
				}
				return nil
			})
		})
	})
	if err != nil {
		return store.Batch{}, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.order, b.order) })
	b.Entries = make([]store.Entry, len(records))
	for i, r := range records {
		b.Entries[i] = r.entry
	}
	return b, nil
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
	return append(append([]byte(owner), 0), key.String()...)
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
