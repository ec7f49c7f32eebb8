package splice_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// The benchmarks run their gateways side by side, each in a process of its own, take turns between them several times,
// and report the medians as ratios to the two-goroutine copy. Machine and kernel change the figures, hardly the ratios.

// rig is several gateways before one backend.
type rig struct {
	b        *testing.B
	backend  net.Listener
	gateways map[string]*gateway
	modes    []string
}

func newRig(b *testing.B, modes ...string) *rig {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	r := &rig{b: b, backend: l, gateways: map[string]*gateway{}, modes: modes}
	for _, mode := range modes {
		r.gateways[mode] = startGateway(b, mode, l.Addr())
	}
	return r
}

// open returns both peers of a new tunnel through a gateway.
func (r *rig) open(mode string) (client, upstream net.Conn) {
	r.b.Helper()
	client, err := net.Dial("tcp", r.gateways[mode].addr)
	if err != nil {
		r.b.Fatal(err)
	}
	upstream, err = r.backend.Accept()
	if err != nil {
		r.b.Fatal(err)
	}
	r.b.Cleanup(func() {
		client.Close()
		upstream.Close()
	})
	return client, upstream
}

// median runs a measurement in turns and returns each mode's median.
func (r *rig) median(rounds int, measure func(mode string) float64) map[string]float64 {
	all := map[string][]float64{}
	for round := range rounds {
		for i := range r.modes {
			mode := r.modes[(i+round)%len(r.modes)] // whoever comes first finds the caches another left
			all[mode] = append(all[mode], measure(mode))
		}
	}
	medians := map[string]float64{}
	for mode, values := range all {
		slices.Sort(values)
		medians[mode] = values[len(values)/2]
	}
	return medians
}

// cpu returns the processor time a gateway spends on what is done.
func (r *rig) cpu(mode string, do func()) time.Duration {
	g := r.gateways[mode]
	before := g.figures().cpu
	do()
	return g.figures().cpu - before
}

// report prints each mode's value and its ratio to the copy's.
func (r *rig) report(unit string, values map[string]float64) {
	for _, mode := range r.modes {
		r.b.ReportMetric(values[mode], mode+"-"+unit)
		if mode != "copy" {
			r.b.ReportMetric(values[mode]/values["copy"], mode+"/copy")
		}
	}
	r.b.ReportMetric(0, "ns/op")
}

// BenchmarkLargeMessages: processor seconds of the gateway for each GiB from the upstream to the client.
func BenchmarkLargeMessages(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			r := newRig(b, "copy", "engine", "engine-1MiB", "portable")
			clients, upstreams := map[string]net.Conn{}, map[string]net.Conn{}
			for _, mode := range r.modes {
				clients[mode], upstreams[mode] = r.open(mode)
			}
			msg := message(splice.Upstream, noise(size))
			const total = 512 << 20
			for b.Loop() {
				r.report("s/GiB", r.median(5, func(mode string) float64 {
					return r.cpu(mode, func() {
						go func() {
							for range total / size {
								upstreams[mode].Write(msg)
							}
						}()
						io.CopyN(onlyWriter{}, clients[mode], int64(total/size*len(msg)))
					}).Seconds() * (1 << 30) / total
				}))
			}
		})
	}
}

type onlyWriter struct{}

func (onlyWriter) Write(b []byte) (int, error) { return len(b), nil }

// echo sends 64-byte messages to and fro over each tunnel and returns the round trips' times.
func echo(clients, upstreams []net.Conn, rounds int) []time.Duration {
	there, back := message(splice.Client, noise(64)), message(splice.Upstream, noise(64))
	times := make([][]time.Duration, len(clients))
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			b := make([]byte, len(there))
			for range rounds {
				if _, err := io.ReadFull(upstreams[i], b); err != nil {
					panic(err)
				}
				upstreams[i].Write(back)
			}
		})
		wg.Go(func() {
			b := make([]byte, len(back))
			for range rounds {
				begin := time.Now()
				clients[i].Write(there)
				if _, err := io.ReadFull(clients[i], b); err != nil {
					panic(err)
				}
				times[i] = append(times[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(times...)
	slices.Sort(all)
	return all
}

// BenchmarkSmallMessages: processor time of the gateway for each 64-byte message, and the round trip.
func BenchmarkSmallMessages(b *testing.B) {
	for _, n := range []int{1, 64, 200} {
		b.Run(fmt.Sprintf("%dtunnels", n), func(b *testing.B) {
			r := newRig(b, "copy", "engine", "portable")
			clients, upstreams := map[string][]net.Conn{}, map[string][]net.Conn{}
			for _, mode := range r.modes {
				for range n {
					client, upstream := r.open(mode)
					clients[mode], upstreams[mode] = append(clients[mode], client), append(upstreams[mode], upstream)
				}
			}
			p50, p99 := map[string][]time.Duration{}, map[string][]time.Duration{}
			rounds := 20000 / n
			for b.Loop() {
				r.report("ns/msg", r.median(9, func(mode string) float64 {
					return float64(r.cpu(mode, func() {
						times := echo(clients[mode], upstreams[mode], rounds)
						p50[mode] = append(p50[mode], times[len(times)/2])
						p99[mode] = append(p99[mode], times[len(times)*99/100])
					})) / float64(2*rounds*n)
				}))
				for _, mode := range r.modes[1:] {
					b.ReportMetric(middle(p50[mode])/middle(p50["copy"]), mode+"/copy-p50")
					b.ReportMetric(middle(p99[mode])/middle(p99["copy"]), mode+"/copy-p99")
				}
			}
		})
	}
}

func middle(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2])
}
