package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Memory is a Store without a disk: its routes end with the process. Its
// zero value is empty.
type Memory struct {
	mu      sync.Mutex
	records map[record]*kept
	at      Position
	order   uint64
	feed    Feed
}

// A record identifies a route of a store.
type record struct {
	owner string
	key   slipswitch.Key
}

type kept struct {
	order  uint64 // of the first put
	value  []byte
	entry  Entry
	active time.Time
}

// Write never waits and, with valid keys, never fails.
func (m *Memory) Write(_ context.Context, owner string, changes ...slipswitch.Change) (uint64, error) {
	keys, err := Keys(changes)
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.start()
	values := make([][]byte, len(changes))
	for i, c := range changes {
		if c.Put != nil {
			var standing []byte
			if k := m.records[record{owner, keys[i]}]; k != nil {
				standing = k.value
			}
			if values[i], err = Encode(c.Put, standing); err != nil {
				return 0, err
			}
		}
	}
	var entries []Entry
	for i, value := range values {
		id := record{owner, keys[i]}
		k := m.records[id]
		switch {
		case value == nil && k != nil:
			delete(m.records, id)
			entries = append(entries, Entry{Owner: owner, Key: keys[i]})
		case value != nil:
			if k == nil {
				m.order++
				k = &kept{order: m.order}
				m.records[id] = k
			}
			k.value, k.entry = value, Decode(owner, keys[i], value, "")
			entries = append(entries, k.entry)
		}
	}
	m.at.Revision++
	m.feed.Publish(Batch{Position: m.at, Entries: entries})
	return m.at.Revision, nil
}

// Touch never waits and never fails.
func (m *Memory) Touch(_ context.Context, activity ...LastUse) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.start()
	var news []LastUse
	for _, a := range activity {
		if k := m.records[record{a.Owner, a.Key}]; k != nil && a.At.After(k.active) {
			k.active = a.At
			news = append(news, a)
		}
	}
	m.at.Revision++
	m.feed.Publish(Batch{Position: m.at, LastUses: news})
	return nil
}

// Watch yields no error.
func (m *Memory) Watch(ctx context.Context, from Position) iter.Seq2[Batch, error] {
	m.mu.Lock()
	m.start()
	m.mu.Unlock()
	return m.feed.Watch(ctx, from, m.full)
}

// start initialises the zero value. The lock is held.
func (m *Memory) start() {
	if m.records == nil {
		m.records = make(map[record]*kept)
		m.at.Identity = rand.Text()
		m.feed.Start(m.at)
	}
}

func (m *Memory) full() (Batch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := Batch{Position: m.at, Full: true}
	all := make([]*kept, 0, len(m.records))
	for _, k := range m.records {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *kept) int { return cmp.Compare(a.order, b.order) })
	for _, k := range all {
		b.Entries = append(b.Entries, k.entry)
		if !k.active.IsZero() {
			b.LastUses = append(b.LastUses, LastUse{k.entry.Owner, k.entry.Key, k.active})
		}
	}
	return b, nil
}
