package gateways

import (
	"context"
	"errors"
	"slices"
	"time"
)

// haproxyReloadPeer is HAProxy as a controller without the runtime API has it:
// master and worker, a new worker for each change, old ones until
// hard-stop-after.
var haproxyReloadPeer = &peer{
	name:        "haproxy-reload",
	reloads:     true,
	onlyChanges: true,
	version:     haproxyVersion,
	start: func(ctx context.Context, s setup) (*gateway, error) {
		program, err := installed("haproxy")
		if err != nil {
			return nil, err
		}
		routes := newRouteSet(s.routes)
		file, err := writeHAProxy(s, routes)
		if err != nil {
			return nil, err
		}
		g, err := startProcess(ctx, s.addr, s.dir, program, "-W", "-f", file)
		if err != nil {
			return nil, err
		}
		g.change = func(ctx context.Context, put, deleted []string) error {
			routes.change(put, deleted)
			if _, err := writeHAProxy(s, routes); err != nil {
				return err
			}
			// A signal that comes while the last one is being followed may be lost:
			// so wait for a worker that was not there before.
			before := g.pids()
			for i := range 500 {
				if i%100 == 0 {
					if err := signalReplace(g.pid); err != nil {
						return err
					}
				}
				if slices.ContainsFunc(g.pids(), func(pid int) bool { return !slices.Contains(before, pid) }) {
					return nil
				}
				if err := rest(ctx, 10*time.Millisecond); err != nil {
					return err
				}
			}
			return errors.New("no new worker after five signals")
		}
		return g, nil
	},
}
