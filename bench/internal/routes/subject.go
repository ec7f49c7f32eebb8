package routes

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/slipswitch/slipswitch/bench/internal/run"

	"github.com/slipswitch/slipswitch"
)

// A Subject is a router in a process of its own, where its garbage is nobody
// else's: it is told what to do over its standard input.
type Subject struct {
	router   router
	workload workload
	table    atomic.Pointer[table]
	n        int
	queries  map[string][]query
}

// Roles are what this program is in a comparison.
var Roles = map[string]run.Role{"router": func(args []string) error {
	r, err := routerOf(args[0])
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.Register(&Subject{router: r}); err != nil {
		return err
	}
	server.ServeConn(standardStreams{})
	return nil
}}

// standardStreams are a connection to the parent.
type standardStreams struct{}

func (standardStreams) Read(p []byte) (int, error)  { return os.Stdin.Read(p) }
func (standardStreams) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (standardStreams) Close() error                { return io.EOF }

// Build is what a table is made of, and within which bounds.
type Build struct {
	Workload string
	Routes   int
	Limit    time.Duration
	Heap     uint64 // bytes
}

// Built is how that went.
type Built struct {
	Took time.Duration
	Heap uint64 // bytes that the table holds
}

// Build makes a table, in place of the last one.
func (s *Subject) Build(b Build, done *Built) (err error) {
	if s.workload, err = workloadOf(b.Workload); err != nil {
		return err
	}
	if s.n = b.Routes; s.workload.size > 0 {
		s.n = s.workload.size
	}
	s.table.Store(nil)
	s.queries = map[string][]query{}
	before := heapInUse()
	begin := time.Now()
	t, err := s.build(s.n, nil, func(added int) error {
		switch {
		case time.Since(begin) > b.Limit:
			return fmt.Errorf("not done after %v, with %d of %d routes", b.Limit, added, s.n)
		case liveHeap() > before+b.Heap:
			return fmt.Errorf("over %d GiB of memory, with %d of %d routes", b.Heap>>30, added, s.n)
		}
		return nil
	})
	if err != nil {
		debug.FreeOSMemory()
		return err
	}
	done.Took = time.Since(begin)
	done.Heap = max(heapInUse(), before) - before
	s.table.Store(&t)
	return s.check()
}

// build makes a table of n routes and some more. Now and then it asks whether to
// go on.
func (s *Subject) build(n int, more []route, goOn func(added int) error) (t table, err error) {
	added, at := 0, 0
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("route %d: %.200v", at, p)
		}
	}()
	t = s.router.new()
	step := 1 << 10
	if _, ok := t.(batcher); ok {
		step = 1 << 16
	}
	list := make([]route, 0, step)
	for ; added < n+len(more); added += len(list) {
		if err := goOn(added); err != nil {
			return nil, err
		}
		list = list[:0]
		for i := added; i < min(n+len(more), added+step); i++ {
			if i < n {
				list = append(list, s.workload.route(i))
			} else {
				list = append(list, more[i-n])
			}
		}
		if all, ok := t.(batcher); ok {
			if err := all.putAll(list); err != nil {
				return nil, err
			}
			continue
		}
		for i, r := range list {
			at = added + i
			if err := t.put(r); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// heapInUse is what is left after collections: a pool, of contexts that lead to
// a table for one, lives through two.
func heapInUse() uint64 {
	for range 3 {
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// liveHeap is what the last collection has found to be in use.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// check asks for some routes, and compares.
func (s *Subject) check() error {
	a, t := newAsker(), *s.table.Load()
	for _, spread := range s.workload.spreads() {
		list := s.asked(spread)
		for i := 0; i < len(list); i += max(1, len(list)/1000) {
			q := list[i]
			a.n, a.match = -1, slipswitch.Match{}
			found := t.lookup(a, q.host, q.path)
			if n, ok := a.match.Label("n"); ok {
				a.n, _ = strconv.Atoi(n)
			}
			if found != (q.n >= 0) || found && a.n != q.n {
				return fmt.Errorf("%.200s%.200s leads to route %d (%v); want %d", q.host, q.path, a.n, found, q.n)
			}
		}
	}
	return nil
}

func (s *Subject) asked(spread string) []query {
	if s.queries[spread] == nil {
		s.queries[spread] = s.workload.queries(spread, s.n)
	}
	return s.queries[spread]
}

// Lookups is how to look up.
type Lookups struct {
	Spread string
	For    time.Duration
}

// Lookup looks up on one core, and returns the nanoseconds that one takes.
func (s *Subject) Lookup(l Lookups, ns *float64) error {
	a, t, list := newAsker(), *s.table.Load(), s.asked(l.Spread)
	runtime.GC() // what was allocated before is not this measurement's
	count, begin := 0, time.Now()
	for time.Since(begin) < l.For {
		for range 256 {
			q := &list[count%len(list)]
			t.lookup(a, q.host, q.path)
			count++
		}
	}
	*ns = float64(time.Since(begin).Nanoseconds()) / float64(count)
	return nil
}

// Change puts a new route and removes it, for a while, and returns the
// nanoseconds that one of both takes.
func (s *Subject) Change(during time.Duration, ns *float64) error {
	t, ok := (*s.table.Load()).(live)
	if !ok {
		return errors.New("it cannot be changed while it serves")
	}
	count, begin := 0, time.Now()
	for time.Since(begin) < during {
		r := s.workload.route(s.n + count%1000)
		if err := t.put(r); err != nil {
			return err
		}
		t.remove(r)
		count += 2
	}
	*ns = float64(time.Since(begin).Nanoseconds()) / float64(count)
	return nil
}

// A Storm is lookups on all cores while routes change.
type Storm struct {
	Changes int // a second
	For     time.Duration
}

// Stormed is how that went.
type Stormed struct {
	PerSecond      float64
	P50, P99, P999 float64       // ns
	Applied        float64       // changes a second
	Behind         time.Duration // at most, from a change to a table that has it
}

// Storm looks up on all cores, each lookup timed by itself. A table that is not
// live is built anew with all the changes since, and swapped, without a rest.
func (s *Subject) Storm(storm Storm, done *Stormed) error {
	list := s.asked("uniform")
	begin := time.Now()
	stop := make(chan struct{})
	var writer sync.WaitGroup
	var failed error
	if storm.Changes > 0 {
		writer.Go(func() { failed = s.change(storm.Changes, stop, done) })
	}
	var mu sync.Mutex
	var readers sync.WaitGroup
	all := hdrhistogram.New(1, int64(time.Minute), 3)
	for core := range runtime.GOMAXPROCS(0) {
		readers.Go(func() {
			a, own := newAsker(), hdrhistogram.New(1, int64(time.Minute), 3)
			count := core * len(list) / 2
			for last := time.Now(); ; count++ {
				q := &list[count%len(list)]
				(*s.table.Load()).lookup(a, q.host, q.path)
				now := time.Now()
				own.RecordValue(int64(now.Sub(last)))
				last = now
				if now.Sub(begin) >= storm.For {
					break // at least one was asked, however late this began
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all.Merge(own)
		})
	}
	readers.Wait()
	done.PerSecond = float64(all.TotalCount()) / time.Since(begin).Seconds()
	close(stop)
	writer.Wait()
	done.P50, done.P99, done.P999 = float64(all.ValueAtQuantile(50)), float64(all.ValueAtQuantile(99)), float64(all.ValueAtQuantile(99.9))
	return failed
}

var errStopped = errors.New("stopped")

// change puts new routes and removes them.
func (s *Subject) change(rate int, stop <-chan struct{}, done *Stormed) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var there []route // that were put and not removed
	applied, begin := 0, time.Now()
	at := func(change int) time.Time {
		return begin.Add(time.Second * time.Duration(change) / time.Duration(rate))
	}
	for {
		select {
		case <-stop:
			done.Behind = max(done.Behind, time.Since(at(applied)))
			done.Applied = float64(applied) / time.Since(begin).Seconds()
			return nil
		case <-tick.C:
		}
		t, isLive := (*s.table.Load()).(live)
		oldest, due := applied, int(time.Since(begin).Seconds()*float64(rate))
		for change := oldest; change < due; change++ {
			r := s.workload.route(s.n + change/2%1000)
			switch put := change%2 == 0; {
			case isLive && put:
				if err := t.put(r); err != nil {
					return err
				}
			case isLive:
				t.remove(r)
			case put:
				there = append(there, r)
			default:
				there = slices.DeleteFunc(there, func(old route) bool { return old == r })
			}
		}
		if !isLive {
			built, err := s.build(s.n, there, func(int) error {
				select {
				case <-stop:
					return errStopped
				default:
					return nil
				}
			})
			if err == errStopped {
				continue
			}
			if err != nil {
				return err
			}
			s.table.Store(&built)
		}
		applied = due
		done.Behind = max(done.Behind, time.Since(at(oldest)))
	}
}
