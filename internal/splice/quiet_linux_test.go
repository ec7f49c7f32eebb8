package splice_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipswitch/slipswitch/internal/splice"
)

const hasTCPInfo = true

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
	until(t, "the engines of other tests have ended", func() bool { return len(stacks()) == 0 })
	pipesBefore := pipesOpen()
	var e splice.Engine
	first := open(t, &e, splice.Config{})
	before := len(descriptors())
	var tunnels []*tunnel
	for range n {
		tunnels = append(tunnels, open(t, &e, splice.Config{IdleTimeout: time.Hour, PingEvery: time.Hour}))
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

// through sends a large message through a gateway process.
func through(t *testing.T, g *gateway, l net.Listener) {
	t.Helper()
	client, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	upstream, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	small := message(splice.Upstream, []byte("open"))
	write(t, upstream, small)
	expect(t, client, small)
	large := message(splice.Upstream, noise(4<<20))
	go upstream.Write(large)
	expect(t, client, large)
}

func TestPipeSoftLimitAsUnprivilegedUser(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := startGateway(t, "engine-small-pipes", l.Addr(), func(cmd *exec.Cmd) {
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
	})
	through(t, g, l)
	g.stop()
	if got := g.errors.String(); !strings.Contains(got, "is too small") {
		t.Errorf("the gateway did not notice: %q", got)
	}
}

func TestNoDescriptorsForPipes(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := startGateway(t, "engine", l.Addr())
	client, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	upstream, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	small := message(splice.Upstream, []byte("open"))
	write(t, upstream, small)
	expect(t, client, small)
	g.ask("use up descriptors")
	large := message(splice.Upstream, noise(4<<20))
	go upstream.Write(large)
	expect(t, client, large)
	client.Close()
	upstream.Close()
	g.stop()
	if got := g.errors.String(); !strings.Contains(got, "pipe2: too many open files") {
		t.Errorf("the gateway did not notice: %q", got)
	}
}

// The peer's machine is gone: a filter on its socket drops whatever comes.
func TestBlackHoledPeer(t *testing.T) {
	for _, pump := range pumps {
		t.Run(pump, func(t *testing.T) {
			t.Parallel()
			e := &splice.Engine{
				Portable:  pump == "portable",
				KeepAlive: net.KeepAliveConfig{Idle: time.Second, Interval: time.Second, Count: 1},
			}
			tun := open(t, e, splice.Config{})
			raw, err := tun.client.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) {
				drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
				err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
			})
			if err != nil {
				t.Fatal(err)
			}
			expectReset(t, tun.upstream)
			end := tun.end()
			if end.By != splice.Client || end.How != splice.Timeout || end.Errno != syscall.ETIMEDOUT {
				t.Errorf("got %+v; want the client's timeout", end.Cause)
			}
		})
	}
}

// The portable pump, with a goroutine for each side, does not promise this. Nor does the kernel, quite: what comes for a
// socket while a call has it locked is handled after the call. So this is not parallel, and few mistakes are allowed.
func TestBothSidesCloseWithin20Microseconds(t *testing.T) {
	wrong := 0
	// On one processor the kernel handles the two in order. The thread goes with the goroutine.
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	var e splice.Engine
	for i := range 300 {
		first := splice.Side(i % 2)
		tun := open(t, &e, splice.Config{})
		a, b := tun.client, tun.upstream
		if first == splice.Upstream {
			a, b = b, a
		}
		write(t, a, []byte("x"))
		expect(t, b, []byte("x"))
		if i%4 < 2 {
			a.SetLinger(0)
			b.SetLinger(0)
		}
		a.Close()
		b.Close()
		if end := tun.end(); end.By != first {
			wrong++
			t.Logf("got %+v; want the %v, which closed first", end.Cause, first)
		}
	}
	if wrong > 3 {
		t.Errorf("%d of 300 ends were blamed on the wrong side", wrong)
	}
}
