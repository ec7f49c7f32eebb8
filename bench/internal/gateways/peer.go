package gateways

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// A peer is a program to compare. To add one, write a file that says how it is
// installed, started and changed, and add it to peers.
type peer struct {
	name string

	// reloads says that the peer reads all of its configuration for each change.
	// It is then asked to do so once a second at most.
	reloads bool

	// onlyChanges says that it is measured only while routes change, because at
	// rest it is another one of the peers.
	onlyChanges bool

	// version finds the program. Its error says what to install.
	version func(ctx context.Context) (string, error)

	// start starts it. It returns when it serves.
	start func(ctx context.Context, s setup) (*gateway, error)
}

// peers are all, in the order of the tables.
var peers = []*peer{slipswitchPeer, barePeer, nginxPeer, haproxyPeer, haproxyReloadPeer, caddyPeer, chpPeer, directPeer}

// A setup is what a peer is started with.
type setup struct {
	dir     string        // for its files
	addr    string        // to listen on, host:port
	admin   string        // another one
	routes  []string      // paths, each a prefix of whole segments
	backend *backend      // where they lead
	grace   time.Duration // what old workers have to end by, where a peer has such
	profile string        // file for a processor profile, if it can write one
}

// A gateway is a peer that runs.
type gateway struct {
	addr string
	pid  int // of the first of its processes

	// change puts and deletes routes: all that is in it is done when it returns,
	// or, where a peer reloads, asked for. It is nil if there are no routes.
	change func(ctx context.Context, put, deleted []string) error

	reloads bool // see peer
	stop    func()
}

// pids are those of all of its processes, now.
func (g *gateway) pids() []int {
	if g.pid == 0 {
		return nil // there are none
	}
	return run.Tree(g.pid)
}

// installed looks for a program in the usual places and where setup.sh puts
// them.
func installed(name string, candidates ...string) (string, error) {
	cache, err := os.UserCacheDir()
	if err == nil {
		for i, c := range candidates {
			candidates[i] = filepath.Join(cache, "slipswitch", c)
		}
	}
	for _, file := range append(candidates, name, "/usr/sbin/"+name) {
		if path, err := exec.LookPath(file); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: bench/setup.sh installs it", name)
}

// versionOf returns the word of what a program prints that looks like a version.
func versionOf(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, out)
	}
	for word := range strings.FieldsSeq(string(out)) {
		word = word[strings.LastIndexByte(word, '/')+1:]
		if digits := strings.TrimLeft(word, "v"); digits != "" && digits[0] >= '0' && digits[0] <= '9' {
			return digits, nil
		}
	}
	return strings.TrimSpace(string(out)), nil
}

// startProcess starts a program, with all that it will start in a group, and
// returns when an address answers.
func startProcess(ctx context.Context, addr, dir, program string, args ...string) (*gateway, error) {
	return startCommand(ctx, addr, dir, exec.Command(program, args...))
}

func startCommand(ctx context.Context, addr, dir string, cmd *exec.Cmd) (*gateway, error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	own(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	g := &gateway{addr: addr, pid: cmd.Process.Pid, stop: func() { killAll(cmd.Process.Pid); <-ended }}
	for {
		var conn net.Conn
		if conn, err = new(net.Dialer).DialContext(ctx, "tcp", addr); err == nil {
			conn.Close()
			return g, nil
		}
		select {
		case <-ended:
			err = errors.New("it has ended")
		case <-ctx.Done():
			err = context.Cause(ctx)
			g.stop()
		case <-time.After(20 * time.Millisecond):
			continue
		}
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s does not start: %w: %.500s", filepath.Base(cmd.Path), err, text)
	}
}

// freeAddress returns one that nobody listens on. Its port is none that the
// system gives to outgoing connections.
func freeAddress() string {
	for port := 20_000 + os.Getpid()%5_000; ; port++ {
		if taken[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil && errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err == nil {
			l.Close()
		}
		taken[port] = true
		return fmt.Sprintf("127.0.0.1:%d", port)
	}
}

var taken = map[int]bool{}
