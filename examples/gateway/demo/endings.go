package demo

import (
	"sync"
	"time"

	"github.com/slipswitch/slipswitch"
)

// An ender ends the sockets of one workspace on purpose, in one of several ways,
// to show how each is reported.
type ender struct {
	demo   *Demo
	path   string
	server *process

	mu sync.Mutex // held while the route or the server is gone
}

// policies are the close policies that the route may have when it is deleted.
var policies = map[string]slipswitch.ClosePolicy{
	"keep":  {},
	"drain": {Close: true, After: time.Second, Window: time.Second, Reason: "the workspace stops"},
	"close": {Close: true, Reason: "the workspace is deleted"},
}

// gone is how long a deleted route, or a killed server, stays away.
const gone = 4 * time.Second

// end kills the workspace's server, or deletes its route under a policy. A little
// later it restores it.
func (e *ender) end(way string) {
	policy, ok := policies[way]
	if !ok && way != "kill" || !e.mu.TryLock() {
		return
	}
	e.demo.running.Go(func() {
		defer e.mu.Unlock()
		var restore func()
		if way == "kill" {
			restore = e.kill()
		} else {
			restore = e.delete(policy)
		}
		select {
		case <-time.After(gone):
			restore()
		case <-e.demo.ctx.Done():
		}
	})
}

// kill kills the server, and returns a function that starts it again.
func (e *ender) kill() (restart func()) {
	e.server.kill()
	return func() {
		if err := e.server.start(); err != nil {
			e.demo.Log.Error("demo", "error", err)
		}
	}
}

// delete deletes the route, and returns a function that puts it back.
func (e *ender) delete(policy slipswitch.ClosePolicy) (restore func()) {
	key := slipswitch.Key{Path: e.path}
	entry, ok := e.demo.Router.Table().At(key)
	if !ok {
		return func() {}
	}
	route := *entry.Route()
	route.OnDelete = policy
	e.change(slipswitch.Change{Put: &route})
	e.change(slipswitch.Change{Delete: &key})
	return func() { e.change(slipswitch.Change{Put: &route}) }
}

func (e *ender) change(c slipswitch.Change) {
	if _, err := e.demo.Router.Apply(nil, c); err != nil {
		e.demo.Log.Error("demo", "error", err)
	}
}
