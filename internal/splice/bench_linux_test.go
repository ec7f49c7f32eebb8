package splice_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
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
	backend  *net.TCPListener
	gateways map[string]*gateway
	modes    []string
}

func newRig(b *testing.B, modes ...string) *rig {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
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

// open returns both peers of a new tunnel through a gateway. No benchmark needs one for longer than five minutes:
// what has not come over it by then does not come.
func (r *rig) open(mode string) (client, upstream net.Conn) {
	r.b.Helper()
	client, err := net.DialTimeout("tcp", r.gateways[mode].addr, wait)
	if err != nil {
		r.b.Fatal(err)
	}
	late := time.Now().Add(5 * time.Minute)
	client.SetDeadline(late)
	if mode == "tls" {
		secured := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
		if err := secured.Handshake(); err != nil {
			r.b.Fatal(err)
		}
		client = secured
	}
	r.backend.SetDeadline(time.Now().Add(wait))
	if upstream, err = r.backend.Accept(); err != nil {
		r.b.Fatalf("the gateway does not connect to its backend: %v", err)
	}
	upstream.SetDeadline(late)
	r.b.Cleanup(func() {
		client.Close()
		upstream.Close()
	})
	return client, upstream
}

// median runs a measurement in turns and returns each mode's median; with -short, after one round.
func (r *rig) median(rounds int, measure func(mode string) float64) map[string]float64 {
	if testing.Short() {
		rounds = 1
	}
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
	for _, size := range []int{16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			r := newRig(b, "copy", "engine", "engine-1MiB", "portable")
			clients, upstreams := map[string]net.Conn{}, map[string]net.Conn{}
			for _, mode := range r.modes {
				clients[mode], upstreams[mode] = r.open(mode)
			}
			msg := message(splice.Upstream, noise(size))
			const total = 192 << 20
			for b.Loop() {
				r.report("s/GiB", r.median(5, func(mode string) float64 {
					return r.cpu(mode, func() {
						go func() {
							for range total / size {
								upstreams[mode].Write(msg)
							}
						}()
						if n, err := io.CopyN(onlyWriter{}, clients[mode], int64(total/size*len(msg))); err != nil {
							b.Fatalf("%s: %d bytes, then %v", mode, n, err)
						}
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
			rounds := 6000 / n
			for b.Loop() {
				r.report("ns/msg", r.median(5, func(mode string) float64 {
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

// openAll opens n tunnels through each gateway.
func (r *rig) openAll(n int) (clients, upstreams map[string][]net.Conn) {
	clients, upstreams = map[string][]net.Conn{}, map[string][]net.Conn{}
	for _, mode := range r.modes {
		for range n {
			client, upstream := r.open(mode)
			clients[mode], upstreams[mode] = append(clients[mode], client), append(upstreams[mode], upstream)
		}
	}
	return clients, upstreams
}

// BenchmarkGreedyNeighbour: the round trips of 200 tunnels beside one that moves as much as it can.
func BenchmarkGreedyNeighbour(b *testing.B) {
	r := newRig(b, "copy", "engine")
	clients, upstreams := r.openAll(201)
	msg := message(splice.Upstream, noise(1<<20))
	for b.Loop() {
		p50 := map[string][]time.Duration{}
		r.report("p99-µs", r.median(5, func(mode string) float64 {
			greedyClient, greedyUpstream := clients[mode][200], upstreams[mode][200]
			stop, stopped := make(chan struct{}), make(chan int64, 1)
			go func() {
				sent := int64(0)
				for {
					select {
					case <-stop:
						stopped <- sent
						return
					default:
						n, _ := greedyUpstream.Write(msg)
						sent += int64(n)
					}
				}
			}()
			received := make(chan int64, 1)
			done := make(chan struct{})
			greedyClient.SetReadDeadline(time.Time{})
			go func() {
				defer close(done)
				got, want := int64(0), int64(-1)
				buffer := make([]byte, 256<<10)
				for got != want {
					n, err := greedyClient.Read(buffer)
					got += int64(n)
					if want >= 0 && err != nil {
						b.Errorf("%s: %d of %d bytes, then %v", mode, got, want, err)
						return
					}
					if err != nil { // a deadline: the sender has stopped
						want = <-received
						greedyClient.SetReadDeadline(time.Now().Add(wait))
					}
				}
			}()
			times := echo(clients[mode][:200], upstreams[mode][:200], 60)
			close(stop)
			received <- <-stopped
			greedyClient.SetReadDeadline(time.Now())
			<-done
			p50[mode] = append(p50[mode], times[len(times)/2])
			return float64(times[len(times)*99/100].Microseconds())
		}))
		b.ReportMetric(middle(p50["engine"])/middle(p50["copy"]), "engine/copy-p50")
	}
}

// deliver writes p to every connection from and waits until it has come out of the others. It returns how long
// each took.
func deliver(from, to []net.Conn, p []byte) []time.Duration {
	times := make([]time.Duration, len(from))
	var wg sync.WaitGroup
	begin := make([]time.Time, len(from))
	for i := range to {
		wg.Go(func() {
			if _, err := io.ReadFull(to[i], make([]byte, len(p))); err != nil {
				panic(err)
			}
			times[i] = time.Since(begin[i])
		})
	}
	for i := range from {
		begin[i] = time.Now()
		from[i].Write(p)
	}
	wg.Wait()
	slices.Sort(times)
	return times
}

// BenchmarkWoken: 2,000 quiet tunnels that all get a message at once.
func BenchmarkWoken(b *testing.B) {
	r := newRig(b, "copy", "engine")
	clients, upstreams := r.openAll(2000)
	for b.Loop() {
		p99 := map[string][]time.Duration{}
		r.report("ns/wake", r.median(5, func(mode string) float64 {
			time.Sleep(1100 * time.Millisecond) // they are quiet by now
			return float64(r.cpu(mode, func() {
				times := deliver(upstreams[mode], clients[mode], message(splice.Upstream, noise(64)))
				p99[mode] = append(p99[mode], times[len(times)*99/100])
			})) / 2000
		}))
		b.ReportMetric(middle(p99["engine"])/middle(p99["copy"]), "engine/copy-p99")
	}
}

// BenchmarkDribble: a byte at a time on each of 4,000 tunnels.
func BenchmarkDribble(b *testing.B) {
	r := newRig(b, "copy", "engine")
	clients, upstreams := r.openAll(4000)
	for b.Loop() {
		at := map[string]int{}
		p99 := map[string][]time.Duration{}
		stream := message(splice.Client, noise(100))
		r.report("ns/byte", r.median(5, func(mode string) float64 {
			return float64(r.cpu(mode, func() {
				for range 3 {
					times := deliver(clients[mode], upstreams[mode], stream[at[mode]:at[mode]+1])
					p99[mode] = append(p99[mode], times[len(times)*99/100])
					at[mode]++
				}
			})) / (3 * 4000)
		}))
		b.ReportMetric(middle(p99["engine"])/middle(p99["copy"]), "engine/copy-p99")
	}
}

// BenchmarkStalledReaders: what 2,000 tunnels hold whose upstreams push and whose clients do not read, and what
// that does to the round trips of 50 others.
func BenchmarkStalledReaders(b *testing.B) {
	for b.Loop() {
		for _, mode := range []string{"copy", "engine"} {
			r := newRig(b, mode)
			clients, upstreams := r.openAll(50)
			stalled, pushing := r.openAll(2000)
			msg := message(splice.Upstream, noise(256<<10))
			p99 := func() float64 {
				var all []time.Duration
				for range 7 {
					times := echo(clients[mode], upstreams[mode], 200)
					all = append(all, times[len(times)*99/100])
				}
				return middle(all)
			}
			p99()
			before, empty := p99(), r.gateways[mode].figures()
			var wg sync.WaitGroup
			for i := range pushing[mode] {
				stalled[mode][i].(*net.TCPConn).SetReadBuffer(16 << 10)
				pushing[mode][i].(*net.TCPConn).SetWriteBuffer(16 << 10)
				wg.Go(func() {
					for {
						pushing[mode][i].SetWriteDeadline(time.Now().Add(time.Second))
						if _, err := pushing[mode][i].Write(msg); err != nil {
							return
						}
					}
				})
			}
			wg.Wait()
			full, after := r.gateways[mode].figures(), p99()
			b.ReportMetric(float64(full.resident-empty.resident)/(1<<20), mode+"-MiB-resident")
			b.ReportMetric(float64(full.descriptors-empty.descriptors)/2*0.25, mode+"-MiB-pipes")
			b.ReportMetric(after/before, mode+"-p99-after/before")
			for i := range stalled[mode] {
				stalled[mode][i].Close()
				pushing[mode][i].Close()
			}
			r.gateways[mode].stop()
		}
		b.ReportMetric(0, "ns/op")
	}
}

// BenchmarkQuietTunnels: resident memory of the gateway for each quiet tunnel, from the slope between 1,000 and 4,000.
// SPLICE_QUIET sets how long they are quiet; 2 s unless told.
func BenchmarkQuietTunnels(b *testing.B) {
	quiet := 2 * time.Second
	if d, err := time.ParseDuration(os.Getenv("SPLICE_QUIET")); err == nil {
		quiet = d
	}
	for _, moved := range []int{0, 128 << 10} {
		b.Run(fmt.Sprintf("after%dKiB", moved>>10), func(b *testing.B) {
			for b.Loop() {
				for _, mode := range []string{"copy", "engine", "tls"} {
					r := newRig(b, mode)
					var conns []net.Conn
					var at [2]figures
					for step, n := range []int{1000, 3000} {
						if mode == "tls" {
							n /= 5 // handshakes take their time
						}
						clients, upstreams := r.openAll(n)
						conns = append(append(conns, clients[mode]...), upstreams[mode]...)
						if moved > 0 {
							msg := message(splice.Upstream, noise(moved/2))
							for i := 0; i < n; i += 100 {
								deliver(upstreams[mode][i:i+100], clients[mode][i:i+100], msg)
								deliver(clients[mode][i:i+100], upstreams[mode][i:i+100], message(splice.Client, noise(moved/2)))
							}
						}
						time.Sleep(quiet)
						at[step] = r.gateways[mode].figures()
					}
					more := float64(at[1].descriptors-at[0].descriptors) / 2
					b.ReportMetric(float64(at[1].resident-at[0].resident)/more, mode+"-B/tunnel")
					if mode == "engine" {
						b.ReportMetric(2*more/3000, "descriptors/tunnel")
						b.ReportMetric(float64(at[1].goroutines-at[0].goroutines), "goroutines")
					}
					for _, c := range conns {
						c.Close()
					}
					r.gateways[mode].stop()
				}
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}
