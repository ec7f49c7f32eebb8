// Package routes compares routers: how long a lookup takes, and a change, with
// few routes and with a million.
package routes

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/rpc"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// Main is the command. Args are its flags.
func Main(ctx context.Context, args []string) error {
	c := comparison{subjects: map[string]*subject{}, tooMany: map[string]int{}}
	flags := flag.NewFlagSet("bench routes", flag.ExitOnError)
	c.Flags(flags, "bench/results/routes.jsonl", 8*time.Minute)
	flags.Parse(args)
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q? there are only flags", flags.Arg(0))
	}
	var known []string
	for _, r := range routers {
		known = append(known, r.name)
	}
	if err := c.Check(known); err != nil {
		return err
	}
	for _, name := range known {
		if c.Wants(name) {
			c.names = append(c.names, name)
		}
	}
	plan := c.plan()
	weight := 0.0
	for _, p := range plan {
		weight += p.weight
	}
	if err := c.Begin(weight, versions(c.names), nil); err != nil {
		return err
	}
	return c.End(c.all(ctx, plan))
}

// A comparison is one run of the command.
type comparison struct {
	run.Run
	names []string

	mu       sync.Mutex
	subjects map[string]*subject // those that run
	tooMany  map[string]int      // by workload and router: how many routes it could not hold
}

// gaveUp returns how many routes were too many, if some were: with more it is
// not tried again.
func (c *comparison) gaveUp(key string) (routes int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	routes, ok = c.tooMany[key]
	return routes, ok
}

func (c *comparison) giveUp(key string, routes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tooMany[key] = routes
}

// subject returns the process of a router, which is started if it does not run
// and anew is set; nil otherwise.
func (c *comparison) subject(peer string, anew bool) (s *subject, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s = c.subjects[peer]; s == nil && anew {
		if s, err = start(peer); err == nil {
			c.subjects[peer] = s
		}
	}
	return s, err
}

// drop ends the process of a router.
func (c *comparison) drop(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.subjects[peer]; s != nil {
		s.end()
		delete(c.subjects, peer)
	}
}

// A step is a table, and what is done with it.
type step struct {
	workload workload
	routes   int
	storm    bool
	weight   float64 // seconds with five rounds
}

const (
	buildLimit = 20 * time.Second
	heapLimit  = 2 << 30
)

func (c *comparison) plan() (steps []step) {
	sizes := []int{10, 1000, 10_000, 100_000, 1_000_000}
	if c.Short {
		sizes = []int{10, 10_000}
	}
	add := func(n int) {
		weight := 12.0
		if n >= 100_000 {
			weight += float64(n) / 15_000 // mostly to build it
		}
		for _, w := range []workload{pathPerWorkspace, hostPerWorkspace} {
			steps = append(steps, step{workload: w, routes: n, weight: weight})
		}
	}
	for _, n := range sizes {
		if n <= 10_000 {
			add(n)
		}
	}
	for _, w := range adversarial {
		steps = append(steps, step{workload: w, routes: w.size, weight: 10})
	}
	steps = append(steps, step{workload: pathPerWorkspace, routes: 10_000, storm: true, weight: 70})
	for _, n := range sizes { // what takes long comes last, for time may be short
		if n > 10_000 {
			add(n)
		}
	}
	return steps
}

func (c *comparison) all(ctx context.Context, plan []step) error {
	defer func() {
		for _, s := range c.subjects {
			s.end()
		}
	}()
	for _, p := range plan {
		if err := c.step(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// step builds a table with all routers, and measures.
func (c *comparison) step(ctx context.Context, p step) error {
	name := fmt.Sprintf("%s, %d routes", p.workload.name, p.routes)
	if p.workload.size > 0 {
		name = p.workload.name
	}
	took, err := c.build(ctx, p, name)
	if err != nil {
		return err
	}
	if c.Over() {
		return nil // the rows of build say so
	}
	var peers []string
	for _, n := range c.names {
		if _, built := took[n]; built {
			peers = append(peers, n)
		}
	}
	during := 40 * time.Millisecond
	if p.storm {
		return c.storm(ctx, p, peers)
	}
	if c.Short {
		during /= 10
	}
	kinds := p.workload.spreads()
	for _, spread := range kinds {
		err := c.Case(ctx, run.Case{Scenario: "lookup", Case: name + ", " + spread, Weight: p.weight / float64(len(kinds)+1), Patience: 20 * time.Second, Brief: true, Peers: peers,
			Measure: func(ctx context.Context, peer string) (run.Values, run.Series, error) {
				var ns float64
				err := c.call(ctx, peer, "Lookup", Lookups{spread, during}, &ns)
				return run.Values{"ns": ns}, nil, err
			}})
		if err != nil {
			return err
		}
	}
	return c.Case(ctx, run.Case{Scenario: "change", Case: name, Weight: p.weight / float64(len(kinds)+1), Patience: buildLimit, Brief: true, Peers: peers,
		Measure: func(ctx context.Context, peer string) (run.Values, run.Series, error) {
			if s, _ := c.subject(peer, false); s == nil || s.live {
				var ns float64
				err := c.call(ctx, peer, "Change", during, &ns)
				return run.Values{"ns": ns}, nil, err
			}
			return run.Values{"ns": float64(took[peer].Nanoseconds()), "rebuilt": 1}, nil, nil
		}})
}

// build makes the table, two routers at a time, and returns how long each took.
// What cannot be built is n/a, and all that would be measured with it.
func (c *comparison) build(ctx context.Context, p step, name string) (took map[string]time.Duration, err error) {
	took = map[string]time.Duration{}
	var mu sync.Mutex
	err = c.Case(ctx, run.Case{Scenario: "build", Case: name, Peers: c.names, Rounds: 1, Together: true, Width: 2, Patience: 2 * buildLimit,
		Measure: func(ctx context.Context, peer string) (run.Values, run.Series, error) {
			if _, err := c.subject(peer, true); err != nil {
				return nil, nil, err
			}
			failed := p.workload.name + peer
			if n, ok := c.gaveUp(failed); ok {
				return nil, nil, fmt.Errorf("not tried, after %d were too many", n)
			}
			var built Built
			err := c.call(ctx, peer, "Build", Build{p.workload.name, p.routes, buildLimit, heapLimit}, &built)
			if err != nil {
				c.giveUp(failed, p.routes)
				return nil, nil, err
			}
			mu.Lock()
			took[peer] = built.Took
			mu.Unlock()
			return run.Values{"ms": built.Took.Seconds() * 1000, "bytes per route": float64(built.Heap) / float64(p.routes)}, nil, nil
		}})
	return took, err
}

func (c *comparison) storm(ctx context.Context, p step, peers []string) error {
	rates := []int{0, 1000, 10_000}
	for _, rate := range rates {
		err := c.Case(ctx, run.Case{Scenario: "storm", Case: fmt.Sprintf("%d changes/s", rate), Weight: p.weight / float64(len(rates)), Patience: 30 * time.Second, Peers: peers,
			Measure: func(ctx context.Context, peer string) (run.Values, run.Series, error) {
				var done Stormed
				during := 500 * time.Millisecond
				if c.Short {
					during /= 5
				}
				err := c.call(ctx, peer, "Storm", Storm{rate, during}, &done)
				return run.Values{"per second": done.PerSecond, "p50 ns": done.P50, "p99 ns": done.P99, "p99.9 ns": done.P999,
					"changes per second": done.Applied, "behind ms": done.Behind.Seconds() * 1000}, nil, err
			}})
		if err != nil {
			return err
		}
	}
	return nil
}

// A subject is a process with a router.
type subject struct {
	client *rpc.Client
	live   bool
	end    func()
}

func start(name string) (*subject, error) {
	r, err := routerOf(name)
	if err != nil {
		return nil, err
	}
	cmd, err := run.Self("router", name)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_, isLive := r.new().(live)
	s := &subject{client: rpc.NewClient(streams{out, in}), live: isLive}
	s.end = func() { cmd.Process.Kill(); s.client.Close(); cmd.Wait() }
	return s, nil
}

type streams struct {
	io.Reader
	io.WriteCloser
}

// call asks a subject. One that does not answer in time is ended; the next
// table gets a new one.
func (c *comparison) call(ctx context.Context, peer, method string, args, reply any) error {
	s, _ := c.subject(peer, false)
	if s == nil {
		return errors.New("its process has ended")
	}
	call := s.client.Go("Subject."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if errors.Is(call.Error, rpc.ErrShutdown) || errors.Is(call.Error, io.ErrUnexpectedEOF) {
			c.drop(peer)
		}
		return call.Error
	case <-ctx.Done():
		c.drop(peer)
		return ctx.Err()
	}
}

// versions are those of the modules that routers come from.
func versions(names []string) map[string]string {
	modules := map[string]string{
		"httprouter": "github.com/julienschmidt/httprouter", "chi": "github.com/go-chi/chi/v5", "bunrouter": "github.com/uptrace/bunrouter",
		"gin": "github.com/gin-gonic/gin", "echo": "github.com/labstack/echo/v4",
	}
	list := map[string]string{}
	info, _ := debug.ReadBuildInfo()
	for _, name := range names {
		list[name] = "this"
		if info == nil || modules[name] == "" {
			continue
		}
		if i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == modules[name] }); i >= 0 {
			list[name] = info.Deps[i].Version
		}
	}
	maps.DeleteFunc(list, func(_, version string) bool { return version == "" })
	return list
}
