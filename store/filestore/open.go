// Package filestore reads routes from the JSON and YAML files of a directory, and
// watches them.
package filestore

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/slipswitch/slipswitch/store"
)

const (
	settle = 50 * time.Millisecond // files are read once nothing has changed for so long,
	hurry  = time.Second           // but not later than that
	rescan = store.Heartbeat       // and anyway this often: some file systems report no changes
)

var errClosed = fmt.Errorf("%w: filestore: closed", store.ErrUnavailable)

// A Store is a directory of route files: those whose names end in .json, .yaml or
// .yml and do not begin with a dot. A file has a list of routes, or an object with
// the list as "routes" and their "owner". A route may have an "owner" of its own.
// Unknown fields are errors.
//
//	owner: team-a
//	routes:
//	- path: /notebooks
//	  upstreams: [http://10.0.0.7:8888]
//	  idleTimeout: 120s
//
// Files are regular files of at most 1 MiB each. A symbolic link must stay in the
// directory, as in a mounted ConfigMap, whose files change all at once. A file that
// cannot be read, or has any error, keeps the routes that it last had, and is
// quarantined with its name and line; its content is never shown. If several files
// have a key of one owner, the first by name wins. If several owners have a key,
// the file order decides, too.
//
// Write keeps routes in the file [Written], and changes no other file. Each write
// rewrites that file, so it is not for many routes or writes.
//
// The methods may be called concurrently. Revisions count from Open on.
type Store struct {
	path string
	feed store.Feed

	mu      sync.Mutex // of scans and writes
	root    *os.Root
	files   map[string]*file
	entries []store.Entry // of the last scan that found a change
	left    []string      // temporary files of writers that are writing or were killed

	stop    context.CancelFunc
	stopped chan struct{}
}

// Open starts to watch a directory, which must exist.
func Open(path string) (*Store, error) {
	s := &Store{path: path, files: make(map[string]*file), stopped: make(chan struct{})}
	s.feed.Start(store.Position{Identity: rand.Text()})
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	if err := watcher.Add(path); err != nil {
		watcher.Close()
		return nil, fmt.Errorf("filestore: %s: %w", path, err)
	}
	if err := s.scan(); err != nil {
		watcher.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go s.follow(ctx, watcher)
	return s, nil
}

// Close ends all watches. A second Close does nothing.
func (s *Store) Close() error {
	s.stop()
	<-s.stopped
	return nil
}

// Watch implements [store.Source]. Every change is yielded as a full batch.
func (s *Store) Watch(ctx context.Context, from store.Position) iter.Seq2[store.Batch, error] {
	return s.feed.Watch(ctx, from, s.full)
}

func (s *Store) full() (store.Batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.Batch{Position: s.feed.Position(), Full: true, Entries: s.entries}, nil
}

// follow scans the directory whenever it may have changed.
func (s *Store) follow(ctx context.Context, watcher *fsnotify.Watcher) {
	defer close(s.stopped)
	defer watcher.Close()
	defer s.close()
	ticker := time.NewTicker(rescan)
	defer ticker.Stop()
	for {
		select {
		case <-watcher.Events:
			s.settle(ctx, watcher)
		case <-watcher.Errors: // events may have been lost
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		s.rescan(watcher)
		s.mu.Unlock()
	}
}

// settle waits until no more events arrive.
func (s *Store) settle(ctx context.Context, watcher *fsnotify.Watcher) {
	late := time.NewTimer(hurry)
	defer late.Stop()
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		select {
		case <-watcher.Events:
			quiet.Reset(settle)
		case <-quiet.C:
			return
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// rescan scans, and if another directory has replaced the watched one, makes the
// watcher follow it. The lock is held.
func (s *Store) rescan(watcher *fsnotify.Watcher) {
	was := s.root
	err := s.scanLocked()
	if s.root != was {
		watcher.Remove(s.path)
		watcher.Add(s.path)
		err = s.scanLocked() // changes from before
	}
	s.feed.Fail(err)
}

func (s *Store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feed.Fail(errClosed)
	if s.root != nil {
		s.root.Close()
		s.root = nil
	}
}

func (s *Store) scan() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scanLocked()
}

// closed reports whether the store is. The lock is held.
func (s *Store) closed() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

// unavailable wraps an error of the directory.
func (s *Store) unavailable(err error) error {
	return fmt.Errorf("%w: filestore: %s: %w", store.ErrUnavailable, s.path, plain(err))
}
