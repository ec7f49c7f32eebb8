package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// BenchmarkPut is one change to a table of a million routes, a table each.
func BenchmarkPut(b *testing.B) {
	const n = 1_000_000
	router := tableOf(b, n)
	for i := 0; b.Loop(); i++ {
		r := route((i * 7919) % n)
		r.IdleTimeout = time.Duration(1+i%1000) * time.Second
		if _, err := router.Update(func(tx *slipswitch.Txn) error { tx.Put(r); return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBatch is a batch of 100,000 new routes into an empty table.
func BenchmarkBatch(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		if got := tableOf(b, n).Table().Len(); got != n {
			b.Fatalf("%d routes; want %d", got, n)
		}
	}
}

// BenchmarkMillion is the resident memory of a process right after it has put
// a million routes, without a garbage collection on demand.
func BenchmarkMillion(b *testing.B) {
	for b.Loop() {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMillionChild$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), "SLIPSWITCH_MILLION=1")
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if mib, ok := strings.CutPrefix(strings.TrimSpace(line), "MiB "); ok {
				n, _ := strconv.ParseFloat(mib, 64)
				b.ReportMetric(n, "MiB-RSS")
			}
		}
	}
}

// TestMillionChild is the process of BenchmarkMillion; by itself it does nothing.
func TestMillionChild(t *testing.T) {
	if os.Getenv("SLIPSWITCH_MILLION") == "" {
		return
	}
	router := tableOf(t, 1_000_000)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kib), " kB"))
			fmt.Printf("MiB %.0f\n", float64(n)/1024)
		}
	}
	runtime.KeepAlive(router)
}
