package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// startEtcd starts a cluster of one member and returns its URL. It syncs each
// write to the disk, as one that is in use does.
func startEtcd(b *testing.B) string {
	b.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("CI") == "" {
			b.Skip("etcd is not installed: apt-get install etcd-server")
		}
		b.Fatal("etcd is not installed")
	}
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String()
	}
	client, peer := free(), free()
	cmd := exec.Command("etcd", "--data-dir", b.TempDir(), "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := web.Get(client + "/health")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return client
		}
	}
	b.Fatal("etcd does not answer")
	return ""
}

// BenchmarkEtcdChange is the time from a batch of 10 to a routed request, with
// 10,000 routes and 100 batches a second: on the gateway that is asked to
// write it, by REST, and on another one. Both are processes, and so is etcd.
func BenchmarkEtcdChange(b *testing.B) {
	n, count := 10_000, 1000
	const rate = 100
	if testing.Short() {
		n, count = 100, 20
	}
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer backend.Close()
	program, err := buildGateway(b.Context(), dir, false)
	if err != nil {
		b.Fatal(err)
	}
	etcd := startEtcd(b)
	var gateways [2]*gateway
	for i := range gateways {
		g, err := startGateway(b.Context(), program, func(map[string]any) {}, "-store=etcd:"+etcd, fmt.Sprint("-name=", i))
		if err != nil {
			b.Fatal(err)
		}
		defer g.stop()
		gateways[i] = g
	}
	put := func(i int, path string) slipswitch.Change {
		r := route(i)
		r.Path = path
		r.Upstreams = slipswitch.To(backend.URL)
		return slipswitch.Change{Put: &r}
	}
	write := func(changes []slipswitch.Change) error {
		return gateways[0].call(b.Context(), "POST", "/v1/batch", map[string]any{"changes": changes}, nil)
	}
	for from := 0; from < n; from += 100 {
		var changes []slipswitch.Change
		for i := from; i < from+100; i++ {
			changes = append(changes, put(i, routePath(i)))
		}
		if err := write(changes); err != nil {
			b.Fatal(err)
		}
	}
	// One connection to each gateway for each batch that can be on its way.
	conns := make(chan [2]*keptConn, rate)
	for range cap(conns) {
		conns <- [2]*keptConn{dialKept(b, gateways[0].public), dialKept(b, gateways[1].public)}
	}
	for round := 0; b.Loop(); round++ {
		var mu sync.Mutex
		var took [2][]time.Duration
		var running sync.WaitGroup
		tick := time.NewTicker(time.Second / rate)
		begin := time.Now()
		for batch := range count {
			<-tick.C
			c := <-conns
			path := fmt.Sprintf("/batch-%d-%d", round, batch)
			changes := []slipswitch.Change{put(0, path)}
			for i := range 9 {
				changes = append(changes, put(0, routePath((batch*9+i)*7919%n)))
				changes[1+i].Put.Labels["batch"] = path
			}
			running.Go(func() {
				defer func() { conns <- c }()
				begin := time.Now()
				routed := func(i int) {
					for {
						status, err := c[i].get(path + "/")
						if err != nil {
							b.Error(err)
							return
						}
						if status == http.StatusOK {
							break
						}
						if time.Since(begin) > patience {
							b.Errorf("%s: %d, %v after the change", path, status, patience)
							return
						}
						time.Sleep(time.Millisecond) // so much the figure is too high
					}
					mu.Lock()
					defer mu.Unlock()
					took[i] = append(took[i], time.Since(begin))
				}
				running.Go(func() { routed(1) })
				if err := write(changes); err != nil {
					b.Error(err)
				}
				routed(0)
			})
		}
		running.Wait()
		tick.Stop()
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(count)/time.Since(begin).Seconds(), "batches/s")
		for i, which := range []string{"writing", "other"} {
			if len(took[i]) > 0 {
				b.ReportMetric(quantile(took[i], 0.5)/1e6, "ms-"+which+"-p50")
				b.ReportMetric(quantile(took[i], 0.99)/1e6, "ms-"+which+"-p99")
			}
		}
	}
}
