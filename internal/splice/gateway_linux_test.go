package splice_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// gatewayMode makes the test binary a gateway in a process of its own, so that its processor time and memory can
// be told from its peers'. It is one of the modes of runGateway.
const gatewayMode = "SPLICE_TEST_GATEWAY"

// child runs this process as what it was started for, if that is not to run tests.
func child() bool {
	mode := os.Getenv(gatewayMode)
	if mode != "" {
		runGateway(mode)
	}
	return mode != ""
}

// runGateway carries every connection to the address on its first line of input, and answers further lines with
// its figures. It ends with its input.
func runGateway(mode string) {
	input := bufio.NewScanner(os.Stdin)
	input.Scan()
	backend := input.Text()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	e := &splice.Engine{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	switch mode {
	case "engine-1MiB":
		e.PipeSize = 1 << 20
	case "engine-copy":
		e.MaxPipes = -1
	case "portable":
		e.Portable = true
	case "engine-small-pipes":
		for range 1100 { // past fs.pipe-user-pages-soft a pipe has two pages at most
			if _, _, err := os.Pipe(); err != nil {
				panic(err)
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", backend)
			if err != nil {
				panic(err)
			}
			switch mode {
			case "copy":
				go copyBoth(client, upstream)
			case "tls":
				secured := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{certificate()}})
				if err := secured.Handshake(); err != nil {
					panic(err)
				}
				e.Start(splice.Config{Client: secured, Upstream: upstream, IdleTimeout: time.Hour})
			default:
				e.Start(splice.Config{Client: client, Upstream: upstream, IdleTimeout: time.Hour})
			}
		}
	}()
	for input.Scan() {
		if input.Text() == "use up descriptors" {
			unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64})
			for {
				if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
					break
				}
			}
			fmt.Println("done")
			continue
		}
		var usage syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
		fmt.Println(usage.Utime.Nano()+usage.Stime.Nano(), resident(), len(descriptors()), runtime.NumGoroutine())
	}
}

// copyBoth is the two-goroutine copy that a tunnel is without an engine. The wrappers keep io.CopyBuffer from splicing.
func copyBoth(client, upstream net.Conn) {
	half := func(dst, src net.Conn) {
		io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 32<<10))
		dst.(*net.TCPConn).CloseWrite()
	}
	go half(upstream, client)
	half(client, upstream)
}

func resident() int {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	return kib << 10
}

// gateway is such a process.
type gateway struct {
	t      testing.TB
	addr   string
	input  io.WriteCloser
	pipe   *os.File
	output *bufio.Scanner
	errors bytes.Buffer
	stop   func() // ends it; errors is complete then
}

type figures struct {
	cpu                               time.Duration
	resident, descriptors, goroutines int
}

func startGateway(t testing.TB, mode string, backend net.Addr, adapt ...func(*exec.Cmd)) *gateway {
	t.Helper()
	g := &gateway{t: t}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), gatewayMode+"="+mode)
	cmd.Stderr = &g.errors
	for _, f := range adapt {
		f(cmd)
	}
	g.input, _ = cmd.StdinPipe()
	output, _ := cmd.StdoutPipe()
	g.pipe, g.output = output.(*os.File), bufio.NewScanner(output)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.stop = sync.OnceFunc(func() {
		g.input.Close()
		defer time.AfterFunc(wait, func() { cmd.Process.Kill() }).Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("gateway: %v\n%s", err, &g.errors)
		}
	})
	t.Cleanup(g.stop)
	g.addr = g.ask(backend.String())
	return g
}

func (g *gateway) ask(line string) string {
	g.t.Helper()
	fmt.Fprintln(g.input, line)
	g.pipe.SetReadDeadline(time.Now().Add(wait))
	if !g.output.Scan() {
		g.stop()
		g.t.Fatalf("gateway: no answer to %q: %v\n%s", line, g.output.Err(), &g.errors)
	}
	return g.output.Text()
}

func (g *gateway) figures() (f figures) {
	g.t.Helper()
	fmt.Sscan(g.ask("figures"), &f.cpu, &f.resident, &f.descriptors, &f.goroutines)
	return f
}
