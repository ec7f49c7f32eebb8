package splice_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // for all without a logger of their own
	if child() {
		return
	}
	before := descriptors()
	code := m.Run()
	listener().Close()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "leaked goroutines:", err)
			code = 1
		}
		// A closed connection may wait for its finalizer or a last poll.
		after := descriptors()
		for deadline := time.Now().Add(5 * time.Second); len(after) > len(before) && time.Now().Before(deadline); {
			runtime.GC()
			time.Sleep(10 * time.Millisecond)
			after = descriptors()
		}
		if len(after) > len(before) {
			fmt.Fprintf(os.Stderr, "leaked descriptors: %v before, %v after\n", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

// descriptors lists the open descriptors of this process, but for the runtime's own poller and its pipe.
func descriptors() []string {
	names, _ := filepath.Glob("/proc/self/fd/*")
	var open []string
	for _, name := range names {
		target, err := os.Readlink(name)
		if err != nil || target == "anon_inode:[eventpoll]" && len(open) == 0 {
			continue
		}
		if target == "anon_inode:[eventfd]" || target == "anon_inode:[eventpoll]" {
			continue // counted by TestEngineEndsWithLastTunnel
		}
		open = append(open, target)
	}
	return open
}
