package gateways

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// slipswitchPeer is examples/gateway, changed over its REST API.
var slipswitchPeer = &peer{
	name:    "slipswitch",
	version: func(context.Context) (string, error) { return "this", nil },
	start:   startSlipswitch,
}

// slipswitchProgram is built once.
var slipswitchProgram struct {
	sync.Mutex
	file string
}

func buildSlipswitch(ctx context.Context, dir string) (string, error) {
	p := &slipswitchProgram
	p.Lock()
	defer p.Unlock()
	if p.file != "" {
		return p.file, nil
	}
	file := filepath.Join(filepath.Dir(dir), "slipswitch-gateway")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", file, "github.com/slipswitch/slipswitch/examples/gateway").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	p.file = file
	return file, nil
}

func startSlipswitch(ctx context.Context, s setup) (*gateway, error) {
	program, err := buildSlipswitch(ctx, s.dir)
	if err != nil {
		return nil, err
	}
	args := []string{"-listen=" + s.addr, "-admin=" + s.admin, "-log-level=warn"}
	if s.profile != "" {
		args = append(args, "-cpuprofile="+s.profile, "-drain-window=0s")
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "SLIPSWITCH_ADMIN_TOKEN="+token)
	g, err := startCommand(ctx, s.addr, s.dir, cmd)
	if err != nil {
		return nil, err
	}
	if kill := g.stop; s.profile != "" {
		g.stop = func() {
			cmd.Process.Signal(os.Interrupt)
			time.AfterFunc(3*time.Second, func() { killAll(g.pid) })
			waitGone(g.pid)
			kill()
		}
	}
	admin := newAPI(g, s.admin)
	g.change = func(ctx context.Context, put, deleted []string) error {
		var changes []string
		for _, path := range put {
			changes = append(changes, `{"put":{"path":"`+path+`","upstreams":["http://`+s.backend.address(path)+`"]}}`)
		}
		for _, path := range deleted {
			changes = append(changes, `{"delete":{"path":"`+path+`"}}`)
		}
		return admin.call(ctx, "POST", "/v1/batch", `{"changes":[`+strings.Join(changes, ",")+`]}`)
	}
	if err := g.change(ctx, s.routes, nil); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

func waitGone(pid int) {
	for range 400 {
		if p, err := os.FindProcess(pid); err != nil || p.Signal(syscall.Signal(0)) != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
