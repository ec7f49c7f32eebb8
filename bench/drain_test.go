//go:build unix

package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"golang.org/x/sync/errgroup"
)

func init() {
	// closers take every upgrade but those of /refused, and answer Close frames
	// by leaving.
	roles["closers"] = func([]string) http.Handler { return http.HandlerFunc(serveSockets) }

	// drainer BACKEND drains the tunnels of a path over a window when
	// /drain?path=…&window=… is asked for.
	roles["drainer"] = func(args []string) http.Handler {
		proxy := &slipswitch.Proxy{Router: new(slipswitch.Router), TunnelValue: func(r *http.Request) any { return r.URL.Path }}
		if _, err := proxy.Router.Update(func(tx *slipswitch.Txn) error {
			tx.Put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://" + args[0])})
			return nil
		}); err != nil {
			panic(err)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/drain" {
				path := r.FormValue("path")
				window, _ := time.ParseDuration(r.FormValue("window"))
				proxy.Drain(func(t *slipswitch.Tunnel) bool { return t.Value() == path }, window, 1012, "bench")
				return
			}
			proxy.ServeHTTP(w, r)
		})
	}
}

func serveSockets(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/refused":
		http.Error(w, "asleep", http.StatusForbidden)
		return
	case r.Header.Get("Upgrade") == "":
		io.WriteString(w, "ok")
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	io.CopyN(io.Discard, conn, 1) // the first byte of a Close frame
}

func upgradeTo(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: ide.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// BenchmarkDrain drains as many tunnels as descriptors allow, up to 10,000, over
// 30 s (with -short 1,000 over 6 s), in a gateway process. It tells the most closes in a second as a multiple
// of the mean, and how many tunnels were not told 1012.
//
// Before that, it closes as many at the same pace, for a moment each: some are
// drained, some leave by themselves, and in between nothing happens. By how much
// the p99 of plain requests is longer in either of these moments than in
// the last quiet one is told as the median of all rounds: what a drain costs
// others, and what of it the ends of sockets cost anyway.
func BenchmarkDrain(b *testing.B) {
	var limit syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	n, window, rounds := min(10_000, int(limit.Cur-1500)/2), 30*time.Second, 7
	if testing.Short() {
		n, window, rounds = min(n, 1000), 6*time.Second, 2
	}
	for b.Loop() {
		gateway := start(b, "drainer", start(b, "closers").addr)
		drain := func(path string, window time.Duration) {
			response, err := web.Get("http://" + gateway.addr + "/drain?path=" + path + "&window=" + window.String())
			if err != nil || response.StatusCode != 200 {
				b.Fatal(response, err)
			}
			response.Body.Close()
		}
		moment := window / 15
		group := n / 15
		all := new(clients)
		for round := range rounds {
			all.open(b, gateway.addr, fmt.Sprint("/drained-", round), group)
			all.open(b, gateway.addr, fmt.Sprint("/leaving-", round), group)
		}
		var drained, leaving []float64
		for round := range rounds {
			quiet := others(b, gateway.addr, moment)
			drain(fmt.Sprint("/drained-", round), moment)
			drained = append(drained, quantile(others(b, gateway.addr, moment), 0.99)/quantile(quiet, 0.99))
			time.Sleep(moment / 4)
			quiet = others(b, gateway.addr, moment)
			go all.leave(fmt.Sprint("/leaving-", round), moment)
			leaving = append(leaving, quantile(others(b, gateway.addr, moment), 0.99)/quantile(quiet, 0.99))
			time.Sleep(moment / 4)
		}
		all.wait(b, 2*rounds*group)

		all = new(clients)
		all.open(b, gateway.addr, "/ide", n)
		if b.Failed() {
			return
		}
		begin := time.Now()
		drain("/ide", window)
		seconds := make([]float64, window/time.Second+15)
		for _, at := range all.wait(b, n) {
			seconds[min(int(at.Sub(begin)/time.Second), len(seconds)-1)]++
		}
		slices.Sort(drained)
		slices.Sort(leaving)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(n), "tunnels")
		b.ReportMetric(slices.Max(seconds)/(float64(n)/window.Seconds()), "peak/mean")
		b.ReportMetric(float64(all.wrong.Load()), "not-1012")
		b.ReportMetric(drained[rounds/2], "p99-ratio")
		b.ReportMetric(leaving[rounds/2], "p99-ratio-leaving")
	}
}

// clients are those of many tunnels.
type clients struct {
	mu     sync.Mutex
	conns  map[string][]net.Conn // by path
	closed chan time.Time
	wrong  atomic.Int64 // that have ended otherwise than by being told 1012
}

// open opens n tunnels.
func (c *clients) open(b *testing.B, addr, path string, n int) {
	if c.conns == nil {
		c.conns, c.closed = make(map[string][]net.Conn), make(chan time.Time, 20_000)
	}
	var opening errgroup.Group
	opening.SetLimit(16)
	for range n {
		opening.Go(func() error {
			conn, err := dial(addr)
			if err != nil {
				return err
			}
			io.WriteString(conn, upgradeTo(path))
			in := bufio.NewReaderSize(conn, 256)
			if response, err := http.ReadResponse(in, nil); err != nil || response.StatusCode != 101 {
				return fmt.Errorf("the answer to an upgrade: %v, %v", response, err)
			}
			c.mu.Lock()
			c.conns[path] = append(c.conns[path], conn)
			c.mu.Unlock()
			go func() {
				defer conn.Close()
				var frame [4]byte
				if _, err := io.ReadFull(in, frame[:]); err != nil || frame[0] != 0x88 || binary.BigEndian.Uint16(frame[2:]) != 1012 {
					c.wrong.Add(1)
				}
				c.closed <- time.Now()
			}()
			return nil
		})
	}
	if err := opening.Wait(); err != nil {
		b.Error(err)
	}
}

// leave closes those of a path, evenly over a window.
func (c *clients) leave(path string, window time.Duration) {
	c.mu.Lock()
	conns := c.conns[path]
	c.mu.Unlock()
	begin := time.Now()
	for i, conn := range conns {
		time.Sleep(time.Until(begin.Add(window * time.Duration(i) / time.Duration(len(conns)))))
		conn.Close()
	}
}

// wait returns when each of n has ended, which must be within a minute.
func (c *clients) wait(b *testing.B, n int) (ends []time.Time) {
	late := time.After(time.Minute)
	for range n {
		select {
		case end := <-c.closed:
			ends = append(ends, end)
		case <-late:
			b.Fatalf("%d of %d tunnels have not ended", n-len(ends), n)
		}
	}
	return ends
}

// others sends a request each 5 ms over each of 4 connections.
func others(b *testing.B, addr string, during time.Duration) (took []time.Duration) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(during)
	for range 4 {
		wg.Go(func() {
			conn, err := dial(addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for time.Now().Before(end) {
				<-tick.C
				begin := time.Now()
				io.WriteString(conn, "GET /plain HTTP/1.1\r\nHost: ide.example.com\r\n\r\n")
				response, err := http.ReadResponse(in, nil)
				if err != nil || response.StatusCode != 200 {
					b.Errorf("the answer to a request: %v, %v", response, err)
					return
				}
				io.Copy(io.Discard, response.Body)
				mu.Lock()
				took = append(took, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return took
}

// BenchmarkRefusedUpgrades is tabs of a stopped workspace that retry for ever:
// 2,000 upgrades a second that the upstream refuses, for two minutes (with -short
// for 20 s). It tells the rate that was reached, by how much the gateway's
// descriptors and memory have grown since the first tenth, and how many of its
// ports towards the upstream wait in TIME_WAIT.
func BenchmarkRefusedUpgrades(b *testing.B) {
	lasts := 2 * time.Minute
	if testing.Short() {
		lasts = 20 * time.Second
	}
	for b.Loop() {
		backend := start(b, "closers")
		gateway := start(b, "drainer", backend.addr)
		var sent atomic.Int64
		var wg sync.WaitGroup
		begin := time.Now()
		for range 8 {
			wg.Go(func() {
				for time.Since(begin) < lasts {
					if ahead := float64(sent.Load())/2000 - time.Since(begin).Seconds(); ahead > 0 {
						time.Sleep(time.Duration(ahead * float64(time.Second)))
					}
					sent.Add(1)
					conn, err := dial(gateway.addr)
					if err != nil {
						b.Error(err)
						return
					}
					io.WriteString(conn, upgradeTo("/refused"))
					response, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil || response.StatusCode != 403 {
						b.Errorf("the answer to an upgrade: %v, %v", response, err)
						conn.Close()
						return
					}
					conn.(*net.TCPConn).SetLinger(0)
					conn.Close()
				}
			})
		}
		time.Sleep(lasts / 10)
		before := usageOf(gateway.cmd.Process.Pid)
		wg.Wait()
		after := usageOf(gateway.cmd.Process.Pid)
		rate := float64(sent.Load()) / time.Since(begin).Seconds()
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(rate, "refused/s")
		b.ReportMetric(float64(after.descriptors-before.descriptors), "descriptors-more")
		b.ReportMetric(float64(after.resident-before.resident)/(1<<20), "MiB-more")
		b.ReportMetric(float64(timeWait(backend.addr)), "TIME_WAIT")
	}
}

// timeWait counts this machine's connections to or from an address that wait.
func timeWait(addr string) (n int) {
	_, port, _ := net.SplitHostPort(addr)
	var number int
	fmt.Sscan(port, &number)
	suffix := fmt.Sprintf(":%04X", number)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, _ := os.ReadFile(file)
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "06" && (strings.HasSuffix(f[1], suffix) || strings.HasSuffix(f[2], suffix)) {
				n++
			}
		}
	}
	return n
}
