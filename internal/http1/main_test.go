package http1_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails on what is left behind: goroutines and descriptors.
func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "leaked goroutines:", err)
			code = 1
		}
		after := descriptors()
		for end := time.Now().Add(wait); len(after) > len(before) && time.Now().Before(end); {
			runtime.GC() // a closed connection may wait for its finalizer
			time.Sleep(10 * time.Millisecond)
			after = descriptors()
		}
		if len(after) > len(before) {
			fmt.Fprintf(os.Stderr, "leaked descriptors: %q before, %q after\n", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

// descriptors lists what this process has open, but for the runtime's poller.
func descriptors() (open []string) {
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		target, err := os.Readlink(name)
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			open = append(open, target)
		}
	}
	return open
}
