package boltstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
	"github.com/slipswitch/slipswitch/store/storetest"
	bolt "go.etcd.io/bbolt"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		path := filepath.Join(t.TempDir(), "routes.db")
		id := func(owner string, key slipswitch.Key) []byte { return []byte(owner + "\x00" + key.String()) }
		return storetest.Subject{
			Open: func(t *testing.T) store.Store { return open(t, path) },
			Plant: func(t *testing.T, owner string, key slipswitch.Key, value string) {
				raw(t, path, func(tx *bolt.Tx) error {
					routes := tx.Bucket([]byte("routes"))
					first := bytes.Clone(routes.Get(id(owner, key))[:8])
					return routes.Put(id(owner, key), append(first, value...))
				})
			},
			Peek: func(t *testing.T, owner string, key slipswitch.Key) (value string) {
				raw(t, path, func(tx *bolt.Tx) error {
					value = string(tx.Bucket([]byte("routes")).Get(id(owner, key))[8:])
					return nil
				})
				return value
			},
		}
	})
}

func open(t testing.TB, path string) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// raw changes a file past the store.
func raw(t testing.TB, path string, change func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err == nil {
		err = errors.Join(db.Update(change), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func put(path, upstream string) slipswitch.Change {
	return slipswitch.Change{Put: &slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://" + upstream)}}
}

// fill writes n routes.
func fill(t testing.TB, s *boltstore.Store, n int) {
	t.Helper()
	var changes []slipswitch.Change
	for i := range n {
		changes = append(changes, put(fmt.Sprint("/", i), "up"))
	}
	if _, err := s.Write(t.Context(), "", changes...); err != nil {
		t.Fatal(err)
	}
}

// load returns all routes as a gateway would have them, by owner and path.
func load(t testing.TB, s *boltstore.Store) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for b, err := range s.Watch(t.Context(), store.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Entries {
			if e.Err != nil {
				t.Fatal(e.Err)
			}
			all[e.Owner+":"+e.Key.Path] = strings.TrimPrefix(e.Route.Upstreams[0].URL, "http://")
		}
		break
	}
	return all
}

func TestOpenLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.db")
	first := open(t, path)
	fill(t, first, 3)
	if _, err := boltstore.Open(path); !errors.Is(err, boltstore.ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v; want ErrLocked and the path", err)
	}
	// A successor that waits is let in when the first closes.
	opened := make(chan error)
	go func() {
		for {
			second, err := boltstore.Open(path)
			if errors.Is(err, boltstore.ErrLocked) {
				continue
			}
			if err == nil {
				err = second.Close()
			}
			opened <- err
			return
		}
	}()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("the successor: %v", err)
	}
}

// A write that was given up is not made later; those that wait with it are, all
// at once.
func TestWriteGivenUp(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "routes.db"))
	release := s.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 1)
	go func() {
		_, err := s.Write(ctx, "", put("/given-up", "up"))
		given <- err
	}()
	var writers sync.WaitGroup
	revisions := make([]uint64, 8)
	for i := range revisions {
		writers.Go(func() {
			var err error
			if revisions[i], err = s.Write(t.Context(), "", put(fmt.Sprint("/", i), "up")); err != nil {
				t.Error(err)
			}
		})
	}
	for s.Queued() < 1+len(revisions) {
		runtime.Gosched()
	}
	cancel()
	if err := <-given; !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("given up: got %v; want ErrUnavailable, and why", err)
	}
	release()
	writers.Wait()
	slices.Sort(revisions)
	if want := []uint64{1, 2, 3, 4, 5, 6, 7, 8}; !slices.Equal(revisions, want) {
		t.Errorf("revisions %v; want %v", revisions, want)
	}
	there := load(t, s)
	if _, made := there[":/given-up"]; made || len(there) != len(revisions) {
		t.Errorf("there is %v; want all but what was given up", there)
	}
}

// Of a batch that is being committed when its writer gives it up, the writer is
// told what has become of it.
func TestWriteGivenUpTooLate(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "routes.db"))
	start := s.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for i := range 4 { // one of them commits for all
		writers.Go(func() {
			if _, err := s.Write(ctx, "", put(fmt.Sprint("/", i), "up")); err != nil {
				t.Errorf("got %v; want none, as it is made", err)
			}
		})
	}
	for s.Queued() < 4 {
		runtime.Gosched()
	}
	finish := s.HoldFile()
	start()
	for s.Queued() > 0 {
		runtime.Gosched()
	}
	cancel()
	for range 1000 { // whoever does not wait has time to say so
		runtime.Gosched()
	}
	finish()
	writers.Wait()
	if there := load(t, s); len(there) != 4 {
		t.Errorf("there is %v; want all four", there)
	}
	if _, err := s.Write(ctx, "", put("/late", "up")); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "routes.db") {
		t.Errorf("given up before: got %v; want so, and the file", err)
	}
}

// A write that is on its way when the store is closed is acknowledged or
// refused, and then either there or not.
func TestCloseDuringWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.db")
	for round := range 10 {
		s := open(t, path)
		acknowledged := make([]bool, 50)
		var writers sync.WaitGroup
		for i := range acknowledged {
			writers.Go(func() {
				_, err := s.Write(t.Context(), fmt.Sprint(round), put(fmt.Sprint("/", i), "up"))
				if acknowledged[i] = err == nil; err != nil && !errors.Is(err, store.ErrUnavailable) {
					t.Error(err)
				}
			})
		}
		s.Close()
		writers.Wait()
		s = open(t, path)
		there := load(t, s)
		for i, yes := range acknowledged {
			if _, ok := there[fmt.Sprintf("%d:/%d", round, i)]; ok != yes {
				t.Errorf("write %d: acknowledged: %v; there: %v", i, yes, ok)
			}
		}
		s.Close()
	}
}

// What is no sound routes file of this version is an error, and left as it is.
func TestOpenRefuses(t *testing.T) {
	sound := filepath.Join(t.TempDir(), "sound.db")
	s := open(t, sound)
	fill(t, s, 2000)
	s.Close()
	content, err := os.ReadFile(sound)
	if err != nil {
		t.Fatal(err)
	}
	meta := func(key string, value []byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			raw(t, path, func(tx *bolt.Tx) error { return tx.Bucket([]byte("slipswitch")).Put([]byte(key), value) })
		}
	}
	for name, tt := range map[string]struct {
		damage func(t *testing.T, path string)
		want   error
	}{
		"later version": {meta("format", []byte{0, 0, 0, 0, 0, 0, 0, 2}), boltstore.ErrNewer},
		"no identity":   {meta("identity", nil), boltstore.ErrCorrupt},
		"no bucket": {func(t *testing.T, path string) {
			raw(t, path, func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("activity")) })
		}, boltstore.ErrCorrupt},
		"other database": {func(t *testing.T, path string) {
			os.Remove(path)
			raw(t, path, func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("other")); return err })
		}, boltstore.ErrCorrupt},
		"short value": {func(t *testing.T, path string) {
			raw(t, path, func(tx *bolt.Tx) error { return tx.Bucket([]byte("routes")).Put([]byte("\x00/a"), []byte("x")) })
		}, boltstore.ErrCorrupt},
		"text":           {overwrite([]byte(strings.Repeat("no database ", 1000))), boltstore.ErrCorrupt},
		"short text":     {overwrite([]byte("no database")), boltstore.ErrCorrupt},
		"zeros":          {overwrite(make([]byte, len(content))), boltstore.ErrCorrupt},
		"cut in half":    {overwrite(content[:len(content)/2]), boltstore.ErrCorrupt},
		"cut in a page":  {overwrite(content[:len(content)/2+100]), boltstore.ErrCorrupt},
		"only its metas": {overwrite(content[:2*os.Getpagesize()]), boltstore.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "routes.db")
			overwrite(content)(t, path)
			tt.damage(t, path)
			refuses(t, path, tt.want)
		})
	}
	t.Run("directory", func(t *testing.T) {
		if _, err := boltstore.Open(t.TempDir()); err == nil {
			t.Error("got no error")
		}
		if _, err := boltstore.Open(filepath.Join(t.TempDir(), "none", "routes.db")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v; want that it does not exist", err)
		}
	})
	// Pages overwritten at random are an error or no harm, and never a crash.
	t.Run("random pages", func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		for range 60 {
			damaged := bytes.Clone(content)
			for range 1 + random.IntN(3) {
				at := random.IntN(len(damaged))
				for i := range min(1+random.IntN(4096), len(damaged)-at) {
					damaged[at+i] = byte(random.Uint32())
				}
			}
			path := filepath.Join(t.TempDir(), "routes.db")
			overwrite(damaged)(t, path)
			s, err := boltstore.Open(path)
			if err != nil {
				if after, _ := os.ReadFile(path); !bytes.Equal(after, damaged) {
					t.Fatalf("refused, but changed: %v", err)
				}
				continue
			}
			s.Write(t.Context(), "", put("/a", "up"))
			for range s.Watch(t.Context(), store.Position{}) {
				break
			}
			s.Close()
		}
	})
}

func overwrite(content []byte) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func refuses(t *testing.T, path string, want error) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = boltstore.Open(path)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v; want %v and the path", err, want)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed (%v)", err)
	}
}
