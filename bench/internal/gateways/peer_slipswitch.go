package gateways

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/slipswitch/slipswitch"
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
	g.change = func(ctx context.Context, put, deleted []string) error {
		var batch struct {
			Changes []slipswitch.Change `json:"changes"`
		}
		for _, path := range put {
			batch.Changes = append(batch.Changes, slipswitch.Change{Put: &slipswitch.Route{
				Path: path, Upstreams: slipswitch.To("http://" + s.backend.address(path))}})
		}
		for _, path := range deleted {
			batch.Changes = append(batch.Changes, slipswitch.Change{Delete: &slipswitch.Key{Path: path}})
		}
		return callAPI(ctx, "POST", "http://"+s.admin+"/v1/batch", batch)
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

const token = "a-token"

// callAPI sends a peer's API something, and wants a 2xx.
func callAPI(ctx context.Context, method, url string, body any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, url, response.Status, answer)
	}
	return err
}
