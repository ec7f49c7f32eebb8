package filestore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"unicode/utf8"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// Written is the file in which Write keeps routes.
const Written = "written.json"

const temporary = ".written.json.new-" // prefix of new files: hidden until one replaces written.json

// Write implements [store.Store]. The new file is synced to the disk, and then
// replaces the old one. A change of a route in another file is store.ErrReadOnly,
// and more routes than fit into the file are store.ErrTooLarge. While the file is
// invalid, writes are store.ErrUnavailable.
//
// Several processes may write to one directory if its file system has locks.
func (s *Store) Write(ctx context.Context, owner string, changes ...slipswitch.Change) (revision uint64, err error) {
	keys, err := store.Keys(changes)
	if err != nil {
		return 0, err
	}
	if !utf8.ValidString(owner) {
		return 0, fmt.Errorf("filestore: the owner %q must be UTF-8", owner)
	}
	unlock, err := lock(ctx, s.path)
	if err != nil {
		return 0, s.unavailable(err)
	}
	if unlock != nil {
		defer unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed() {
		return 0, errClosed
	}
	if err := ctx.Err(); err != nil {
		return 0, s.unavailable(err)
	}
	if err := s.scanLocked(); err != nil { // the file may have changed
		return 0, err
	}
	if unlock != nil {
		s.sweep()
	}
	entries, err := s.changed(owner, keys, changes)
	if err != nil {
		return 0, err
	}
	data, err := encode(entries)
	if err != nil {
		return 0, err
	}
	if len(data) > maxFile {
		return 0, fmt.Errorf("%w: filestore: %s would have %d bytes; at most %d are read", store.ErrTooLarge, Written, len(data), maxFile)
	}
	if current, err := s.content(Written); err != nil || !bytes.Equal(current, data) {
		if err := s.replace(data); err != nil {
			return 0, err
		}
	}
	if err := s.scanLocked(); err != nil {
		return 0, err
	}
	return s.feed.Position().Revision, nil
}

// changed returns the entries of the file after the changes.
func (s *Store) changed(owner string, keys []slipswitch.Key, changes []slipswitch.Change) ([]store.Entry, error) {
	var entries []store.Entry
	if f := s.files[Written]; f != nil {
		if f.err != nil {
			return nil, fmt.Errorf("%w: repair the file first: %w", store.ErrUnavailable, f.err)
		}
		entries = slices.Clone(f.good)
	}
	for i, c := range changes {
		is := func(e store.Entry) bool { return e.Owner == owner && e.Key == keys[i] }
		at := slices.IndexFunc(entries, is)
		if at < 0 {
			for name, f := range s.files {
				if j := slices.IndexFunc(f.good, is); j >= 0 && name != Written {
					return nil, fmt.Errorf("%w: filestore: %.80q stands in %s: change it there", store.ErrReadOnly, keys[i], f.good[j].Where)
				}
			}
		}
		switch {
		case c.Put == nil && at >= 0:
			entries = slices.Delete(entries, at, at+1)
		case c.Put != nil && at >= 0:
			entries[at].Route = c.Put
		case c.Put != nil:
			entries = append(entries, store.Entry{Owner: owner, Key: keys[i], Route: c.Put})
		}
	}
	return entries, nil
}

// encode returns the routes as JSON, one in each line.
func encode(entries []store.Entry) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`{"routes":[`)
	for i, e := range entries {
		route, err := store.Encode(e.Route, nil)
		if err != nil {
			return nil, err
		}
		if e.Owner != "" {
			name, err := json.Marshal(e.Owner)
			if err != nil {
				return nil, err
			}
			route = slices.Concat([]byte(`{"owner":`), name, []byte(","), route[1:])
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		b.Write(route)
	}
	b.WriteString("\n]}\n")
	return b.Bytes(), nil
}

// sweep removes temporary files that killed writers have left. The directory is
// locked.
func (s *Store) sweep() {
	for _, name := range s.left {
		s.root.Remove(name)
	}
	s.left = nil
}

// replace replaces the file with a new one.
func (s *Store) replace(data []byte) error {
	name := temporary + rand.Text() // unique, even without locks
	err := func() error {
		f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		return s.root.Rename(name, Written)
	}()
	switch {
	case err == nil:
		if dir, err := s.root.Open("."); err == nil {
			dir.Sync() // some systems cannot, and need not
			dir.Close()
		}
		return nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: filestore: %s: %w", store.ErrReadOnly, s.path, plain(err))
	}
	s.root.Remove(name)
	return s.unavailable(err)
}
