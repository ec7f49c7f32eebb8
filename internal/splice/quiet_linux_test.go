package splice_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// pipesOpen counts this process's descriptors of pipes.
func pipesOpen() (n int) {
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		if target, _ := os.Readlink(name); strings.HasPrefix(target, "pipe:") {
			n++
		}
	}
	return n
}

// stacks returns all goroutines that are in the package's own code.
func stacks() []string {
	b := make([]byte, 4<<20)
	b = b[:runtime.Stack(b, true)]
	var own []string
	for stack := range strings.SplitSeq(string(b), "\n\n") {
		if strings.Contains(stack, "/internal/splice.(*") {
			own = append(own, stack)
		}
	}
	return own
}

// Not parallel: it counts what the whole process holds.
func TestQuietTunnelIsTwoDescriptors(t *testing.T) {
	const n = 100
	pipesBefore := pipesOpen()
	var e splice.Engine
	first := open(t, &e, splice.Config{})
	before := len(descriptors())
	var tunnels []*tunnel
	for range n {
		tunnels = append(tunnels, open(t, &e, splice.Config{IdleTimeout: time.Hour}))
	}
	for i, tun := range append(tunnels, first) {
		data := message(splice.Upstream, noise(128<<10+i))
		go tun.upstream.Write(data)
		expect(t, tun.client, data)
		up := message(splice.Client, []byte("hello"))
		write(t, tun.client, up)
		expect(t, tun.upstream, up)
	}
	until(t, "no pipe left after the burst", func() bool { return pipesOpen() == pipesBefore })
	// Two of each four are the peers'.
	if got := len(descriptors()) - before; got != 4*n {
		t.Errorf("%d tunnels hold %d descriptors; want %d", n, got-2*n, 2*n)
	}
	until(t, "loops and clock only", func() bool {
		own := stacks()
		for _, stack := range own {
			if !strings.Contains(stack, ".(*loop).run") && !strings.Contains(stack, ".(*clock).run") {
				t.Logf("%s", stack)
				return false
			}
		}
		return len(own) == runtime.GOMAXPROCS(0)+1
	})
}
