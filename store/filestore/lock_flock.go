//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filestore

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// lock waits until no other process or Store writes to a directory, and keeps
// others from writing until unlock is called. It returns nil if the file system
// has no such locks.
//
// The directory itself is locked, as a lock file would have to stay for ever. The
// lock ends with the process. lock polls, since flock cannot be interrupted.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { dir.Close() }, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				dir.Close()
				return nil, ctx.Err()
			}
		case !errors.Is(err, syscall.EINTR):
			dir.Close()
			return nil, nil
		}
	}
}
