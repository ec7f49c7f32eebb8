package filestore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

const (
	maxFile  = 1 << 20 // bytes
	maxFiles = 10_000
)

// A file is a file of the directory as it was last read.
type file struct {
	hash [sha256.Size]byte
	good []store.Entry // of the last time that it was valid
	err  error         // why it is invalid now
}

// scanLocked reads the directory, and publishes a batch if something has changed.
// Its error means that the directory cannot be read; then nothing changes. The
// lock is held.
func (s *Store) scanLocked() error {
	if err := s.reopen(); err != nil {
		return s.unavailable(err)
	}
	var files map[string]*file
	for range 3 {
		version := s.version()
		var err error
		if files, err = s.read(); err != nil {
			return s.unavailable(err)
		}
		if s.version() == version {
			break // otherwise some files may be from before a swap, and some from after it
		}
	}
	entries := merge(files)
	if !slices.EqualFunc(entries, s.entries, sameEntry) || s.feed.Position().Revision == 0 {
		at := s.feed.Position()
		at.Revision++
		s.entries = entries
		s.feed.Publish(store.Batch{Position: at, Full: true, Entries: entries})
	}
	s.files = files
	return nil
}

// reopen opens the directory, again if another has replaced it.
func (s *Store) reopen() error {
	if s.root != nil {
		was, err := s.root.Stat(".")
		if err == nil {
			var is os.FileInfo
			if is, err = os.Stat(s.path); err == nil && os.SameFile(was, is) {
				return nil
			}
		}
		s.root.Close()
		s.root = nil
	}
	root, err := os.OpenRoot(s.path)
	if err == nil {
		s.root = root
	}
	return err
}

// version returns the target of ..data, through which the files of a ConfigMap
// are linked. It is replaced when they change.
func (s *Store) version() string {
	target, _ := s.root.Readlink("..data")
	return target
}

// read reads all files.
func (s *Store) read() (map[string]*file, error) {
	dir, err := s.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	files := make(map[string]*file)
	s.left = nil
	for _, name := range names {
		if strings.HasPrefix(name, temporary) {
			s.left = append(s.left, name)
		}
		if !isRoutes(name) {
			continue
		}
		if len(files) == maxFiles {
			return nil, fmt.Errorf("more than %d files", maxFiles)
		}
		if f := s.readFile(name); f != nil {
			files[name] = f
		}
	}
	return files, nil
}

func isRoutes(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".json", ".yaml", ".yml"}, path.Ext(name))
}

// readFile returns a file as it is now, or nil if there is none.
func (s *Store) readFile(name string) *file {
	before := s.files[name]
	if before == nil {
		before = new(file)
	}
	data, err := s.content(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := s.root.Lstat(name); statErr != nil {
			return nil // it is not even a dangling link
		}
	}
	if err != nil {
		return &file{good: before.good, err: fmt.Errorf("filestore: %s: %w", name, plain(err))}
	}
	hash := sha256.Sum256(data)
	if hash == before.hash {
		return before
	}
	entries, err := parse(name, data)
	if err != nil {
		return &file{hash: hash, good: before.good, err: err}
	}
	return &file{hash: hash, good: entries}
}

// plain removes the path from an error, which would name it twice.
func plain(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

func (s *Store) content(name string) ([]byte, error) {
	f, err := s.root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("must be a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(data) > maxFile {
		return nil, fmt.Errorf("must be at most %d bytes long", maxFile)
	}
	return data, err
}

// merge returns the entries of all files, with errors for invalid files and for
// keys that several files have.
func merge(files map[string]*file) (entries []store.Entry) {
	type claim struct {
		owner string
		key   slipswitch.Key
	}
	claims := make(map[claim]string)
	for _, name := range sortedNames(files) {
		f := files[name]
		if f.err != nil {
			entries = append(entries, store.Entry{Where: name, Err: f.err})
		}
		for _, e := range f.good {
			c := claim{e.Owner, e.Key}
			if first, ok := claims[c]; ok {
				e = store.Entry{Owner: e.Owner, Key: e.Key, Where: e.Where,
					Err: fmt.Errorf("filestore: %s: the route is in %s already", e.Where, first)}
			} else {
				claims[c] = e.Where
			}
			entries = append(entries, e)
		}
	}
	return entries
}

func sortedNames(files map[string]*file) []string {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// sameEntry reports whether two entries are equal.
func sameEntry(a, b store.Entry) bool {
	if a.Owner != b.Owner || a.Key != b.Key || a.Where != b.Where || (a.Err == nil) != (b.Err == nil) || (a.Route == nil) != (b.Route == nil) {
		return false
	}
	return (a.Err == nil || a.Err.Error() == b.Err.Error()) && (a.Route == nil || a.Route == b.Route || a.Route.Equal(b.Route))
}
