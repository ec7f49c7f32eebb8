package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// buildGateway builds examples/gateway into dir.
func buildGateway(ctx context.Context, dir string, race bool) (program string, err error) {
	program = filepath.Join(dir, "gateway.exe")
	out, err := exec.CommandContext(ctx, "go", "build", fmt.Sprintf("-race=%v", race), "-o", program,
		"github.com/slipswitch/slipswitch/examples/gateway").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return program, nil
}

// A gateway is examples/gateway, in a process of its own.
type gateway struct {
	cmd    *exec.Cmd
	public string // host:port
	admin  string
	ended  chan struct{} // closed when the process is gone
	err    error         // how
}

const token = "a-token"

// startGateway starts one. It calls logged for each line of its log, one at a time.
func startGateway(ctx context.Context, program string, logged func(line map[string]any), args ...string) (*gateway, error) {
	g := &gateway{ended: make(chan struct{})}
	g.cmd = exec.CommandContext(ctx, program, append([]string{"-listen=127.0.0.1:0", "-admin=127.0.0.1:0", "-log-format=json", "-drain-delay=0s"}, args...)...)
	g.cmd.Env = append(os.Environ(), "SLIPSWITCH_ADMIN_TOKEN="+token)
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	serving := make(chan struct{})
	go func() {
		defer close(g.ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) != nil {
				fmt.Fprintln(os.Stderr, lines.Text()) // such as a panic
				continue
			}
			switch line["msg"] {
			case "serving the admin API":
				g.admin = line["address"].(string)
			case "serving":
				g.public = line["address"].(string)
				close(serving)
			default:
				logged(line)
			}
		}
		g.err = g.cmd.Wait()
	}()
	select {
	case <-serving:
		return g, nil
	case <-g.ended:
		return nil, fmt.Errorf("the gateway does not start: %v", g.err)
	case <-time.After(patience):
		g.cmd.Process.Kill()
		<-g.ended
		return nil, fmt.Errorf("the gateway does not serve within %v", patience)
	}
}

// stop asks the gateway to end, and returns how it did.
func (g *gateway) stop() error {
	g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.ended:
		return g.err
	case <-time.After(time.Minute):
		g.cmd.Process.Kill()
		<-g.ended
		return errors.New("the gateway does not end")
	}
}

// call asks the admin API, and wants a 2xx.
func (g *gateway) call(ctx context.Context, method, path string, body, answer any) error {
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+g.admin+path, bytes.NewReader(encoded))
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
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, path, response.Status, text)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(text, answer)
	}
	return err
}

// figures are what a gateway uses.
type figures struct {
	usage
	Tunnels, Goroutines int
	Heap                int // bytes
}

func (g *gateway) figures(ctx context.Context) (f figures, err error) {
	err = g.call(ctx, "GET", "/v1/status", nil, &f)
	f.usage = usageOf(g.cmd.Process.Pid)
	return f, err
}

// usage is what the system knows of a process: nothing but on Linux.
type usage struct {
	cpu                          time.Duration
	resident, descriptors, pipes int // bytes; pipes are among the descriptors, twice
}

func usageOf(pid int) (u usage) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	tasks, _ := os.ReadDir(dir + "task")
	for _, task := range tasks {
		stat, err := os.ReadFile(dir + "task/" + task.Name() + "/schedstat")
		if err != nil {
			continue // the thread has ended
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(stat))[0], 10, 64)
		u.cpu += time.Duration(ns)
	}
	status, _ := os.ReadFile(dir + "status")
	if _, rest, found := strings.Cut(string(status), "VmRSS:"); found {
		kib, _ := strconv.Atoi(strings.Fields(rest)[0])
		u.resident = kib << 10
	}
	names, _ := os.ReadDir(dir + "fd")
	u.descriptors = len(names)
	seen := map[string]bool{}
	for _, name := range names {
		to, _ := os.Readlink(dir + "fd/" + name.Name())
		if strings.HasPrefix(to, "pipe:") && seen[to] { // both ends: not one of the process's own streams
			u.pipes++
		}
		seen[to] = true
	}
	return u
}
