package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch"
)

// A soak keeps a number of tunnels open through a gateway. Both ends of each
// send frames of all sizes, at random times, and know what they must receive.
// Meanwhile
//
//   - routes change, those of the tunnels among them,
//   - each second one in a hundred tunnels ends: by a reset or a close of
//     either end in the middle of everything, or as it should, by a half-close
//     of one end that the other answers,
//   - now and then a backend dies with all its tunnels, and comes back,
//   - some ends read slowly.
//
// What ends is opened again. Twice, near the beginning and at the end, all hold
// their breath, and what the gateway uses for the same number of quiet tunnels
// is compared.
type soak struct {
	during  time.Duration
	tunnels int
	changes int // of routes, each second
	race    bool

	gateway  *gateway
	backends []*backend
	busy     sync.RWMutex // read-locked by whoever does something; locked: silence
	killing  sync.Mutex   // held by whoever ends tunnels; locked: all that are open stay so

	mu      sync.Mutex
	known   map[uint64]*tunnel // by id: those being opened, too
	open    map[uint64]*tunnel
	reports map[any]int // close reports, by whose end it was
	wrong   []error

	ids, opened, killed, died, refused, changed, bytes, messages atomic.Int64
}

const (
	routesPerBackend = 10
	patience         = 30 * time.Second // for what should happen at once
)

// run returns a line of figures, and what was wrong.
func (s *soak) run(ctx context.Context) (line string, err error) {
	s.known, s.open, s.reports = map[uint64]*tunnel{}, map[uint64]*tunnel{}, map[any]int{}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	program, err := buildGateway(ctx, dir, s.race)
	if err != nil {
		return "", err
	}
	whole, cancel := context.WithCancel(ctx)
	defer cancel() // whatever happens, the gateway ends
	if s.gateway, err = startGateway(whole, program, s.logged); err != nil {
		return "", err
	}
	go func() {
		<-s.gateway.ended
		cancel()
	}()
	for i := range max(4, s.tunnels/100) {
		b := &backend{soak: s, address: fmt.Sprintf("127.0.1.%d:0", 1+i%250)}
		if err := b.start(); err != nil {
			return "", err
		}
		b.address = b.listener.Addr().String() // also when it comes back
		defer b.kill()
		s.backends = append(s.backends, b)
	}
	if err := s.change(whole, s.ownRoutes(0, s.routes())...); err != nil {
		return "", err
	}
	empty, err := s.gateway.figures(whole)
	if err != nil {
		return "", err
	}

	storm, calm := context.WithCancel(whole)
	defer calm()
	var seats, others sync.WaitGroup
	for i := range s.tunnels {
		seats.Go(func() { s.keepOpen(storm, i) })
	}
	others.Go(func() { s.changeRoutes(storm) })
	others.Go(func() { s.endTunnels(storm) })
	var early, late figures
	begin := time.Now()
	for _, phase := range []struct {
		until time.Duration
		then  *figures
	}{{s.during / 4, &early}, {s.during, &late}} {
		select {
		case <-time.After(time.Until(begin.Add(phase.until))):
		case <-whole.Done():
			return "", s.failed(errors.New("the gateway is gone"), ctx.Err())
		}
		if *phase.then, err = s.quiet(whole); err != nil {
			return "", s.failed(err)
		}
	}
	took := time.Since(begin)

	calm()
	others.Wait()
	s.mu.Lock()
	for _, t := range s.open {
		t.ends[rand.IntN(2)].finish()
	}
	s.mu.Unlock()
	seats.Wait()
	s.await(whole, "the gateway has its descriptors back", func() bool {
		f, err := s.gateway.figures(whole)
		return err == nil && f.Tunnels == 0 && f.descriptors <= empty.descriptors+slackDescriptors && f.pipes <= empty.pipes
	})
	if err := s.gateway.stop(); err != nil {
		s.fail("the gateway's end: %w", err)
	}
	s.check(early, late)
	mib := func(n int) float64 { return float64(n) / (1 << 20) }
	return fmt.Sprintf("soak: %v, %d tunnels, %d opened, %d of them killed, also by %d deaths of backends, %d route changes, %.1f GiB in %d messages, %d wrong; "+
		"goroutines %d → %d, descriptors %d → %d, pipes %d → %d, heap %.1f → %.1f MiB, RSS %.1f → %.1f MiB, %.2f of a core",
		took.Round(time.Second), s.tunnels, s.opened.Load(), s.killed.Load(), s.died.Load(), s.changed.Load(),
		float64(s.bytes.Load())/(1<<30), s.messages.Load(), len(s.wrong),
		early.Goroutines, late.Goroutines, early.descriptors, late.descriptors, early.pipes, late.pipes,
		mib(early.Heap), mib(late.Heap), mib(early.resident), mib(late.resident), (late.cpu-empty.cpu).Seconds()/took.Seconds()), s.failed()
}

const slackDescriptors = 8 // connections of the admin API

// check compares the two silences, and counts reports.
func (s *soak) check(early, late figures) {
	for _, f := range []struct {
		what                 string
		early, late, allowed int
	}{
		{"goroutines", early.Goroutines, late.Goroutines, early.Goroutines + slackDescriptors},
		{"descriptors", early.descriptors, late.descriptors, early.descriptors + slackDescriptors},
		{"pipes", early.pipes, late.pipes, 0},
		{"bytes of heap", early.Heap, late.Heap, early.Heap*5/4 + 4<<20},
		{"bytes resident", early.resident, late.resident, early.resident*5/4 + 8<<20},
	} {
		if f.late > f.allowed {
			s.fail("%s have grown from %d to %d", f.what, f.early, f.late)
		}
	}
	total := 0
	for by, n := range s.reports {
		if total += n; by != "client" && by != "upstream" {
			s.fail("%d tunnels were ended by: %v", n, by)
		}
	}
	if opened := int(s.opened.Load()); total != opened {
		s.fail("%d close reports of %d tunnels", total, opened)
	}
}

// logged takes a line of the gateway's log.
func (s *soak) logged(line map[string]any) {
	switch line["msg"] {
	case "tunnel closed":
		s.mu.Lock()
		s.reports[line["by"]]++
		s.mu.Unlock()
	case "slipswitch: tunnels have closed together", "slipswitch: request failed": // clients judge the latter
	default:
		if line["level"] != "INFO" {
			s.fail("the gateway's log: %v", line)
		}
	}
}

func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Errorf(format, args...))
}

// failed returns all that was wrong, the first few in full.
func (s *soak) failed(more ...error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := append(slices.Clone(s.wrong), more...)
	if n := len(all); n > 20 {
		all = append(all[:20], fmt.Errorf("and %d more", n-20))
	}
	return errors.Join(all...)
}

// await waits until something holds.
func (s *soak) await(ctx context.Context, what string, holds func() bool) {
	late := time.After(patience)
	for tick := time.NewTicker(50 * time.Millisecond); !holds(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-late:
			s.fail("not within %v: %s", patience, what)
			return
		}
	}
}

// quiet returns what the gateway uses while all tunnels are open, all that was
// sent has arrived, and nothing happens.
func (s *soak) quiet(ctx context.Context) (figures, error) {
	s.killing.Lock()
	defer s.killing.Unlock()
	s.await(ctx, "all tunnels are open", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.open) == s.tunnels && len(s.known) == s.tunnels
	})
	s.busy.Lock()
	defer s.busy.Unlock()
	s.mu.Lock()
	open := slices.Collect(maps.Values(s.open))
	s.mu.Unlock()
	s.await(ctx, "all that was sent has arrived", func() bool {
		return !slices.ContainsFunc(open, func(t *tunnel) bool {
			return t.ends[0].sent.Load() != t.ends[1].received.Load() || t.ends[1].sent.Load() != t.ends[0].received.Load()
		})
	})
	select {
	case <-time.After(2 * time.Second): // pipes are kept for a moment
	case <-ctx.Done():
	}
	return s.gateway.figures(ctx)
}

func (s *soak) routes() int { return len(s.backends) * routesPerBackend }

// ownRoutes returns changes that put the tunnels' routes from i on.
func (s *soak) ownRoutes(i, n int) (list []slipswitch.Change) {
	for range n {
		list = append(list, slipswitch.Change{Put: &slipswitch.Route{
			Path: ownPath(i % s.routes()), StripPath: true, Upstreams: slipswitch.To("http://" + s.backends[i%len(s.backends)].address),
			Labels: map[string]string{"change": fmt.Sprint(s.changed.Load())},
		}})
		i++
	}
	return list
}

func ownPath(i int) string { return fmt.Sprintf("/webapp-01/ide-%d", i) }

// changeRoutes makes a batch of changes ten times a second: routes that no
// tunnel uses come, change and go, and are never seen again; half of the
// changes are to the routes of tunnels, one of which is missing until the next
// batch.
func (s *soak) changeRoutes(ctx context.Context) {
	size := max(s.changes/10, 4)
	tick := time.NewTicker(time.Second * time.Duration(size) / time.Duration(s.changes))
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		batch := s.ownRoutes(round*(size/2-1), size/2-1)
		batch = append(batch, slipswitch.Change{Delete: &slipswitch.Key{Path: ownPath(round * (size/2 - 1) % s.routes())}})
		if round > 0 {
			batch = append(batch, s.ownRoutes((round-1)*(size/2-1), 1)...)
		}
		for i := 0; len(batch) < size; i++ {
			other := slipswitch.Route{Path: fmt.Sprintf("/webapp-02/ide-%d-%d", round/3, i), Upstreams: slipswitch.To("http://127.0.2.1:8080"),
				Labels: map[string]string{"round": fmt.Sprint(round)}}
			if round%3 < 2 {
				batch = append(batch, slipswitch.Change{Put: &other})
			} else {
				batch = append(batch, slipswitch.Change{Delete: &slipswitch.Key{Path: other.Path}})
			}
		}
		s.busy.RLock()
		err := s.change(ctx, batch...)
		s.busy.RUnlock()
		if err != nil && ctx.Err() == nil {
			s.fail("%w", err)
		}
	}
}

func (s *soak) change(ctx context.Context, changes ...slipswitch.Change) error {
	s.changed.Add(int64(len(changes)))
	return s.gateway.call(ctx, "POST", "/v1/batch", map[string]any{"changes": changes}, nil)
}
