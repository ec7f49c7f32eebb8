//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package filestore

import "context"

// lock returns nil: there are no locks here.
func lock(context.Context, string) (unlock func(), err error) { return nil, nil }
