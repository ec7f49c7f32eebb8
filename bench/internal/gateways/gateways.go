// Package gateways compares whole programs, side by side: slipswitch's gateway
// and what people use today.
package gateways

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// Main is the command. Args are its flags.
func Main(ctx context.Context, args []string) error {
	var c comparison
	flags := flag.NewFlagSet("bench gateways", flag.ExitOnError)
	c.Flags(flags, "bench/results/gateways.jsonl", 15*time.Minute)
	flags.StringVar(&c.profiles, "cpuprofile", "", "`directory` for processor profiles of slipswitch's gateway, one for each case")
	flags.Func("scenarios", "`names` of those to measure, with commas between (all)", c.only)
	flags.Parse(args)
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q? there are only flags", flags.Arg(0))
	}
	return c.compare(ctx)
}

// A comparison is one run of the command.
type comparison struct {
	run.Run
	profiles  string
	scenarios []*scenario
	dir       string // for files of this run
	backend   *backend
	present   []*peer
}

func (c *comparison) only(list string) error {
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(scenarios, func(s *scenario) bool { return s.name == name })
		if i < 0 {
			return fmt.Errorf("there is no scenario %q", name)
		}
		c.scenarios = append(c.scenarios, scenarios[i])
	}
	return nil
}

func (c *comparison) compare(ctx context.Context) (err error) {
	var known []string
	for _, p := range peers {
		known = append(known, p.name)
	}
	if err := c.Check(known); err != nil {
		return err
	}
	if c.scenarios == nil {
		c.scenarios = scenarios
	}
	if c.profiles != "" {
		if err := os.MkdirAll(c.profiles, 0o755); err != nil {
			return err
		}
	}
	if c.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	versions, missing := map[string]string{}, map[string]string{}
	for _, p := range peers {
		if !c.Wants(p.name) {
			continue
		}
		if version, err := p.version(ctx); err != nil {
			missing[p.name] = err.Error()
			c.Note("%s is missing: %v", p.name, err)
		} else {
			versions[p.name] = version
			c.present = append(c.present, p)
		}
	}
	weight := 0.0
	for _, s := range c.scenarios {
		weight += s.cost(c.Reps) * float64(len(s.routes))
	}
	if err := c.Begin(weight, versions, missing); err != nil {
		return err
	}
	return c.End(c.all(ctx))
}

// cost is what a case may take, in seconds, with so many rounds.
func (s *scenario) cost(reps int) float64 {
	if s.rounds > 0 {
		reps = min(reps, s.rounds)
	}
	return s.weight * float64(reps)
}

func (c *comparison) all(ctx context.Context) (err error) {
	if c.backend, err = startBackend(ctx, c.dir); err != nil {
		return err
	}
	defer c.backend.stop()
	for _, s := range c.scenarios {
		for _, n := range s.routes {
			if err := c.scenario(ctx, s, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// scenario starts all peers, and measures one case of a scenario with them.
func (c *comparison) scenario(ctx context.Context, s *scenario, n int) error {
	site := &site{short: c.Short, grace: 10 * time.Second, backend: c.backend}
	if c.Short {
		site.grace = 3 * time.Second
	}
	for i := range n {
		site.routes = append(site.routes, run.Path(i))
	}
	todo := run.Case{Scenario: s.name, Weight: s.cost(c.Reps), Patience: s.patience, Together: s.together, Rounds: s.rounds}
	if len(s.routes) > 1 {
		todo.Case = fmt.Sprintf("%d routes", n)
	}
	if c.Over() {
		for _, p := range c.present {
			if s.takes(p) {
				todo.Peers = append(todo.Peers, p.name)
			}
		}
		return c.Case(ctx, todo)
	}
	running, failed := c.start(ctx, s, site, todo.Case)
	defer func() {
		for _, g := range running {
			g.stop()
		}
	}()
	for _, p := range c.present {
		if g := running[p.name]; g != nil {
			todo.Peers = append(todo.Peers, p.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if err := c.NA(todo, name, failed[name].Error()); err != nil {
			return err
		}
	}
	todo.Measure = func(ctx context.Context, peer string) (run.Values, run.Series, error) {
		return s.measure(ctx, site, running[peer])
	}
	return c.Case(ctx, todo)
}

// start starts the peers that a scenario is for, all at once.
func (c *comparison) start(ctx context.Context, s *scenario, site *site, name string) (running map[string]*gateway, failed map[string]error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not ready after a minute"))
	defer cancel()
	running, failed = map[string]*gateway{}, map[string]error{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, p := range c.present {
		if !s.takes(p) {
			continue
		}
		setup := setup{addr: freeAddress(), admin: freeAddress(), routes: site.routes, backend: c.backend, grace: site.grace}
		if c.profiles != "" {
			setup.profile = filepath.Join(c.profiles, strings.ReplaceAll(strings.TrimSpace(s.name+" "+name), " ", "-")+".pprof")
		}
		all.Go(func() {
			var g *gateway
			var err error
			if setup.dir, err = os.MkdirTemp(c.dir, p.name); err == nil {
				g, err = p.start(ctx, setup)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[p.name] = err
				return
			}
			g.reloads = p.reloads
			running[p.name] = g
		})
	}
	all.Wait()
	return running, failed
}
