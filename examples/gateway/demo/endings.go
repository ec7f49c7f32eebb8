package demo

import (
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// An ender ends the sockets of one workspace on purpose, in one of several
// ways, so that one can see how each is reported.
type ender struct {
	demo      *Demo
	workspace *workspace

	mu sync.Mutex // held while a route is gone
}

// policies are what the route may say about its end.
var policies = map[string]slipswitch.Ending{
	"keep":  {},
	"drain": {Close: true, After: time.Second, Window: time.Second, Reason: "the workspace stops"},
	"close": {Close: true, Reason: "the workspace is deleted"},
}

// routeGone is how long a deleted route stays away.
const routeGone = 4 * time.Second

// end kills the workspace's sockets, as a crash of its server would, or deletes
// its route under a policy, and puts it back a little later.
func (e *ender) end(way string) {
	if way == "kill" {
		e.workspace.kill()
		return
	}
	policy, ok := policies[way]
	if !ok || !e.mu.TryLock() {
		return
	}
	e.demo.running.Go(func() {
		defer e.mu.Unlock()
		key := slipswitch.Key{Path: e.workspace.path}
		entry, ok := e.demo.Router.Table().At(key)
		if !ok {
			return
		}
		route := *entry.Route
		route.OnDelete = policy
		e.change(slipswitch.Change{Put: &route})
		e.change(slipswitch.Change{Delete: &key})
		select {
		case <-time.After(routeGone):
			e.change(slipswitch.Change{Put: &route})
		case <-e.demo.ctx.Done():
		}
	})
}

func (e *ender) change(c slipswitch.Change) {
	if _, err := e.demo.Router.Apply(nil, c); err != nil {
		e.demo.Log.Error("demo", "error", err)
	}
}

// kill ends all sockets without a word.
func (w *workspace) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.tabs {
		t.cancel()
	}
}
