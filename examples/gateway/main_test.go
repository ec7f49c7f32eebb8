package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// The tests run the program as it is: built, in a process of its own.
var program string

func TestMain(m *testing.M) { programtest.Main(m, &program, client.CloseIdleConnections) }

// client asks the gateway and its admin API. All is answered, and read, within
// two minutes.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 2 * time.Minute}

// A process is a gateway that runs.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	public string // host:port
	admin  string
	token  string // of the admin API
	stdout *programtest.Buffer
	stderr *programtest.Buffer
	log    io.Closer     // that stderr is read from
	exited chan struct{} // closed when it has
	err    error         // how

	mu    sync.Mutex
	lines []logLine
	more  chan struct{} // closed at the next line
}

// A logLine is one of the log's, by its keys.
type logLine map[string]any

const token = "a-token-for-tests"

// start starts a gateway on free ports and waits until it serves. The test's
// end is the process's, and fails if anything but its log is left.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	return startCommand(t, exec.Command(program, append([]string{
		"-listen=127.0.0.1:0", "-admin=127.0.0.1:0", "-admin-token=" + token, "-log-format=json",
		"-drain-delay=0s", "-drain-window=5s",
	}, args...)...), token)
}

func startCommand(t testing.TB, cmd *exec.Cmd, token string) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, token: token, stdout: new(programtest.Buffer), stderr: new(programtest.Buffer),
		exited: make(chan struct{}), more: make(chan struct{})}
	cmd.Env = append(cmd.Environ(), "GORACE=atexit_sleep_ms=0")
	if cmd.Stdout == nil {
		cmd.Stdout = p.stdout
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.log = log
	go func() {
		p.readLog(log)
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		if !p.hasExited() {
			p.stop()
		}
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", p.stderr)
		}
	})
	if !slices.Contains(cmd.Args, "-admin=") {
		p.admin = p.await("serving the admin API", nil)["address"].(string)
	}
	p.public = p.await("serving", nil)["address"].(string)
	return p
}

// readLog reads until the process closes its standard error.
func (p *process) readLog(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fmt.Fprintln(p.stderr, lines.Text())
		var line logLine
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		p.mu.Lock()
		p.lines = append(p.lines, line)
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
}

// logged returns the lines so far with a message, and a channel that is closed
// when there are more.
func (p *process) logged(message string) ([]logLine, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.lines), func(l logLine) bool { return l["msg"] != message }), p.more
}

const patience = programtest.Patience

// await waits for a line with a message that is as wanted; nil: any.
func (p *process) await(message string, wanted func(logLine) bool) logLine {
	p.t.Helper()
	late := time.After(patience)
	for {
		lines, more := p.logged(message)
		for _, line := range lines {
			if wanted == nil || wanted(line) {
				return line
			}
		}
		select {
		case <-more:
		case <-p.exited:
			p.t.Fatalf("the gateway ended (%v) without having logged %q:\n%s", p.err, message, p.stderr)
		case <-late:
			p.t.Fatalf("the gateway has not logged %q:\n%s", message, p.stderr)
		}
	}
}

func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop asks the process to end, and checks that it ends well.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.wait(0)
}

// wait waits for the process's end, and checks its status.
func (p *process) wait(status int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		p.t.Fatal("the gateway does not end")
	}
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		p.t.Errorf("exit status %d (%v); want %d", got, p.err, status)
	}
}

// descriptors returns how many the process has open; 0 where one cannot look.
func (p *process) descriptors() int {
	names, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	return len(names)
}

// call asks the admin API, and decodes the answer.
func (p *process) call(method, path string, body, answer any) (status int, err error) {
	var encoded io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		encoded = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, "http://"+p.admin+path, encoded)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+p.token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(text, answer)
	}
	return response.StatusCode, err
}

// must is call where nothing may go wrong.
func (p *process) must(method, path string, body, answer any) {
	p.t.Helper()
	if _, err := p.call(method, path, body, answer); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) put(routes ...slipswitch.Route) {
	p.t.Helper()
	changes := make([]slipswitch.Change, len(routes))
	for i := range routes {
		changes[i].Put = &routes[i]
	}
	p.must("POST", "/v1/batch", map[string]any{"changes": changes}, nil)
}

// get asks the gateway itself; any host will do.
func (p *process) get(path string) (*http.Response, string, error) {
	response, err := client.Get("http://" + p.public + path)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response, string(body), err
}
