package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// patience is for what must come.
const patience = programtest.Patience

// chpVersion is the one that .ci/install installs.
const chpVersion = "5.3.0"

// A program is one of the two.
type program struct {
	name    string
	command []string
	real    bool
}

func ours() program { return program{name: "chp", command: []string{built}} }

// both are this program and the real one. Where that is not installed its
// checks are left out, but not in CI.
func both(t *testing.T) []program {
	t.Helper()
	cache, _ := os.UserCacheDir()
	prefix := filepath.Join(cache, "slipswitch")
	root := filepath.Join(prefix, "node_modules", "configurable-http-proxy")
	manifest, err := os.ReadFile(filepath.Join(root, "package.json"))
	if bytes.Contains(manifest, []byte(`"version": "`+chpVersion+`"`)) {
		return []program{ours(), {name: "configurable-http-proxy", command: []string{"node", filepath.Join(root, "bin", "configurable-http-proxy")}, real: true}}
	}
	needs := fmt.Sprintf("configurable-http-proxy %s (%v): npm install --no-save --prefix %s configurable-http-proxy@%[1]s", chpVersion, err, prefix)
	if os.Getenv("CI") != "" {
		t.Fatalf("this test needs %s", needs)
	}
	t.Logf("not compared, for want of %s", needs)
	return []program{ours()}
}

// A process is one of the programs that runs.
type process struct {
	program
	t       testing.TB
	cmd     *exec.Cmd
	public  address
	api     address
	metrics address
	output  *programtest.Buffer
	exited  chan struct{}
	killed  bool
}

// An address is a TCP address or a Unix socket, with TLS or without.
type address struct {
	at     string
	secure *tls.Config // nil: without
}

func (a address) network() string {
	if filepath.IsAbs(a.at) {
		return "unix"
	}
	return "tcp"
}

func (a address) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, a.network(), a.at)
	if err != nil || a.secure == nil {
		return conn, err
	}
	secure := tls.Client(conn, a.secure)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// client returns an HTTP client that asks only this address, each time on a
// connection of its own.
func (a address) client() *http.Client {
	return &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true,
			DialContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dial(ctx) },
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dial(ctx) },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (a address) url(path string) string {
	if a.network() == "unix" {
		return "http://localhost" + path
	}
	return "http://" + a.at + path
}

// freePorts returns addresses that were free a moment ago.
func freePorts(t testing.TB, n int) (addresses, ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		addresses, ports = append(addresses, l.Addr().String()), append(ports, port)
	}
	return addresses, ports
}

// start starts a program and waits until it serves. Its end is the test's.
func start(t testing.TB, p program, m mode, args ...string) *process {
	t.Helper()
	for range 5 { // somebody else may have taken a port meanwhile
		s := &process{program: p, t: t, output: new(programtest.Buffer), exited: make(chan struct{})}
		at, ports := freePorts(t, 3)
		s.public, s.api, s.metrics = address{at: at[0]}, address{at: at[1]}, address{at: at[2]}
		all := []string{"--ip=127.0.0.1", "--port=" + ports[0], "--api-port", ports[1], "--api-ip", "127.0.0.1", "--metrics-ip", "127.0.0.1", "--metrics-port", ports[2]}
		if m.sockets {
			dir := t.TempDir()
			s.public.at, s.api.at, s.metrics.at = filepath.Join(dir, "public"), filepath.Join(dir, "api"), filepath.Join(dir, "metrics")
			all = []string{"--socket", s.public.at, "--api-socket", s.api.at, "--metrics-socket", s.metrics.at}
		}
		s.public.secure, s.api.secure = m.tls, m.apiTLS
		if s.run(append(all, args...), m.env...); s.serves() {
			t.Cleanup(s.stop)
			return s
		}
		if !strings.Contains(s.output.String(), "EADDRINUSE") && !strings.Contains(s.output.String(), "address already in use") {
			t.Fatalf("%s %q does not serve:\n%s", p.name, args, s.output)
		}
	}
	t.Fatal("no free ports")
	return nil
}

func (s *process) run(args []string, env ...string) {
	s.cmd = exec.Command(s.command[0], append(s.command[1:len(s.command):len(s.command)], args...)...)
	s.cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		s.cmd.Wait()
		close(s.exited)
	}()
}

// serves waits until both servers answer, or the process has ended.
func (s *process) serves() bool {
	late := time.After(patience)
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		up := 0
		for _, a := range []address{s.public, s.api} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if conn, err := a.dial(ctx); err == nil {
				conn.Close()
				up++
			}
			cancel()
		}
		select {
		case <-s.exited:
			return false // or the port is somebody else's
		case <-late:
			s.t.Fatalf("%s does not answer:\n%s", s.name, s.output)
		case <-tick.C:
			if up == 2 {
				return true
			}
		}
	}
}

// stop ends the process. Ours must end well.
func (s *process) stop() {
	s.t.Helper()
	if s.killed {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	if status := s.status(); !s.real && status != 0 {
		s.t.Errorf("exit status %d; want 0", status)
	}
	if s.t.Failed() && testing.Verbose() {
		s.t.Logf("the output of %s:\n%s", s.name, s.output)
	}
}

// kill ends it without its doing.
func (s *process) kill() {
	s.killed = true
	s.cmd.Process.Kill()
	<-s.exited
}

// status waits for the process's end and returns its status.
func (s *process) status() int {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		s.t.Errorf("%s does not end", s.name)
		<-s.exited
	}
	return s.cmd.ProcessState.ExitCode()
}

// runToEnd runs a program that is to end by itself.
func runToEnd(d *driver, args ...string) (output string, status int) {
	d.Helper()
	s := &process{program: d.program, t: d.T, output: new(programtest.Buffer), exited: make(chan struct{})}
	s.run(args)
	status = s.status()
	return s.output.String(), status
}

// startEtcd starts an etcd of this test's own, and returns how a command line
// names it.
func startEtcd(d *driver) string {
	d.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		programtest.Missing(d.T, "etcd: Debian's package etcd-server")
	}
	at, _ := freePorts(d, 2)
	cmd := exec.Command("etcd", "--data-dir", d.dir, "--listen-client-urls", "http://"+at[0], "--advertise-client-urls", "http://"+at[0],
		"--listen-peer-urls", "http://"+at[1], "--initial-advertise-peer-urls", "http://"+at[1], "--initial-cluster", "default=http://"+at[1], "--log-level", "error", "--unsafe-no-fsync=true")
	output := new(programtest.Buffer)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if d.Failed() {
			d.Logf("etcd's output:\n%s", output)
		}
	})
	client := address{at: at[0]}.client()
	programtest.Eventually(d, "etcd answers", func() bool {
		response, err := client.Get("http://" + at[0] + "/health")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return "etcd:http://" + at[0] + "#/chp/"
}
