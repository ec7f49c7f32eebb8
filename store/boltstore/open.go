// Package boltstore keeps routes in one file, for one gateway, without a
// server.
package boltstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/store"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The file is a bbolt database with three buckets:
//
//	slipswitch  format (1), identity, revision, order (of the latest first put)
//	routes      owner NUL key → order of its first put (8 bytes), the route as JSON
//	activity    owner NUL key → unix nanoseconds (8 bytes)
//
// A key is Key.String, which has no NUL. Numbers are big-endian.
var (
	metaBucket     = []byte("slipswitch")
	routesBucket   = []byte("routes")
	activityBucket = []byte("activity")

	formatKey   = []byte("format")
	identityKey = []byte("identity")
	revisionKey = []byte("revision")
	orderKey    = []byte("order")
)

const format = 1

// lockWait is how long Open waits while another process has the file open.
const lockWait = time.Second

// Errors of Open. They are wrapped by ones that name the file.
var (
	ErrLocked  = errors.New("boltstore: another process has the file open")
	ErrCorrupt = errors.New("boltstore: the file is damaged, or not a routes file")
	ErrNewer   = errors.New("boltstore: the file was written by a later version")
)

var errClosed = fmt.Errorf("%w: boltstore: closed", store.ErrUnavailable)

// A Store is an open file of routes. It is a [store.ActivityStore]. When Write
// returns, the changes are on the disk and survive a crash of the process and of
// the machine. Batches that are written at the same time share their syncs.
//
// The methods may be called concurrently.
type Store struct {
	path string
	db   *bolt.DB
	feed store.Feed

	committing chan struct{} // of length 1, a lock: held by the goroutine that commits

	mu     sync.Mutex
	queue  []*write // that wait to be committed
	closed bool     // nothing more is queued
}

// Open opens a file, or creates it. Only one process can have it open: if another
// has, Open waits for up to a second, and then returns ErrLocked. ErrCorrupt and
// ErrNewer leave the file as it is.
func Open(path string) (*Store, error) {
	_, statErr := os.Stat(path)
	s := &Store{path: path, committing: make(chan struct{}, 1)}
	err := guard(func() (err error) {
		// NoFreelistSync would save one page of each commit, but in a damaged file
		// bbolt then panics while it looks for free pages, where no recover reaches it.
		s.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType})
		return err
	})
	if err == nil {
		if err = guard(s.load); err != nil {
			s.db.Close()
		}
	}
	if err == nil && errors.Is(statErr, os.ErrNotExist) {
		syncDir(filepath.Dir(path))
	}
	_, named := errors.AsType[*os.PathError](err)
	switch {
	case err == nil:
		return s, nil
	case named:
		return nil, err
	case errors.Is(err, bolterrors.ErrTimeout):
		err = ErrLocked
	case isDamage(err):
		err = fmt.Errorf("%w (%v)", ErrCorrupt, err)
	}
	return nil, fmt.Errorf("%w: %s", err, path)
}

// Close closes the file, so that another process can open it. Watches end, and
// writes fail, with store.ErrUnavailable; a write that has begun is finished
// first. A second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.feed.Fail(errClosed)
	s.committing <- struct{}{}
	s.commitQueued()
	err := s.db.Close()
	<-s.committing
	return err
}

// load reads the whole file once, which shows damage, and initialises a new file.
func (s *Store) load() error {
	var at store.Position
	fresh := false
	err := s.db.View(func(tx *bolt.Tx) error {
		info, err := os.Stat(s.db.Path())
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: it is cut off", ErrCorrupt)
		}
		meta := tx.Bucket(metaBucket)
		if meta == nil {
			fresh = true
			if name, _ := tx.Cursor().First(); name != nil {
				return fmt.Errorf("%w: it holds %.40q", ErrCorrupt, name)
			}
			return nil
		}
		if got := number(meta.Get(formatKey)); got != format {
			return fmt.Errorf("%w: it has format %d, and this is for %d", ErrNewer, got, format)
		}
		at = position(tx)
		if at.Identity == "" || tx.Bucket(routesBucket) == nil || tx.Bucket(activityBucket) == nil {
			return fmt.Errorf("%w: something is missing", ErrCorrupt)
		}
		for _, bucket := range [][]byte{routesBucket, activityBucket} {
			err := tx.Bucket(bucket).ForEach(func(key, value []byte) error {
				if len(value) < 8 {
					return fmt.Errorf("%w: the value of %.80q is too short", ErrCorrupt, key)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if fresh {
		at.Identity = rand.Text()
		if err := s.db.Update(func(tx *bolt.Tx) error { return create(tx, at.Identity) }); err != nil {
			return err
		}
	}
	s.feed.Start(at)
	return nil
}

func create(tx *bolt.Tx, identity string) error {
	meta, err := tx.CreateBucket(metaBucket)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{routesBucket, activityBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return errors.Join(
		meta.Put(formatKey, bytes8(format)),
		meta.Put(identityKey, []byte(identity)),
		meta.Put(revisionKey, bytes8(0)),
		meta.Put(orderKey, bytes8(0)))
}

// position returns the position of the file.
func position(tx *bolt.Tx) store.Position {
	meta := tx.Bucket(metaBucket)
	return store.Position{Identity: string(meta.Get(identityKey)), Revision: number(meta.Get(revisionKey))}
}

// A damage is the panic of bbolt at a page that cannot be valid.
type damage struct{ found any }

func (d *damage) Error() string { return fmt.Sprint(d.found) }

// guard runs a function that reads a file which may be damaged. It turns bbolt's
// panics, and faults at missing pages, into errors.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if found := recover(); found != nil {
			err = &damage{found}
		}
	}()
	return f()
}

func isDamage(err error) bool {
	_, damaged := errors.AsType[*damage](err)
	return damaged || errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrChecksum) ||
		errors.Is(err, bolterrors.ErrVersionMismatch) || errors.Is(err, bolterrors.ErrInvalidMapping) || errors.Is(err, io.ErrUnexpectedEOF)
}

// failure wraps an error of reading or writing the file. Not all of bbolt's
// errors name the file; those that do then name it twice.
func (s *Store) failure(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		err = pathErr.Err
	}
	return fmt.Errorf("%w: boltstore: %s: %w", store.ErrUnavailable, s.path, err)
}

// syncDir makes a new file's name durable. Some systems cannot, and need not.
func syncDir(path string) {
	if dir, err := os.Open(path); err == nil {
		dir.Sync()
		dir.Close()
	}
}

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func bytes8(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
