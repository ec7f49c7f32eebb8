package embedtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

const (
	runsMain = "SLIPSWITCH_EMBED_MAIN" // makes a test's binary run the program
	token    = "secret"
)

// TestMain runs a program's tests, and fails if they leave goroutines behind. For
// Program the binary also runs as the program itself.
func TestMain(m *testing.M, main func()) {
	if os.Getenv(runsMain) != "" {
		main()
		return
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, "leaked goroutines:", err)
		code = 1
	}
	os.Exit(code)
}

// Program runs a program of serve.Main: it puts a route by REST, opens a socket,
// changes other routes, and sends SIGTERM, which must end the socket with 1012
// and the program with success.
func Program(t *testing.T) {
	p := launch(t, "-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0")
	lines := bufio.NewScanner(p.output)
	traffic := addressBehind(t, lines, "traffic")
	rest := addressBehind(t, lines, "REST")
	p.drive(t, traffic, "http://"+rest)
}

// ProgramAt is Program for a program that, by its arguments, serves traffic at an
// address and the REST API at a URL.
func ProgramAt(t *testing.T, traffic, rest string, arguments ...string) {
	p := launch(t, arguments...)
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", traffic)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the program does not serve: %v", err)
		}
	}
	p.drive(t, traffic, rest)
}

// A program is the test's binary, run as the program.
type program struct {
	*exec.Cmd
	output io.Reader // its standard error
}

func launch(t *testing.T, arguments ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(os.Args[0], arguments...)}
	home := t.TempDir()
	p.Env = append(os.Environ(), runsMain+"=1", "SLIPSWITCH_ADMIN_TOKEN="+token,
		"HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home)
	output, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.output = output
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill() })
	return p
}

// drive uses the program, and ends it.
func (p *program) drive(t *testing.T, traffic, rest string) {
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(io.Discard, p.output)
	}()
	u := startUpstream(t)
	g := &Gateway{Addr: traffic}
	put(t, rest, "/mine", u.URL)
	socket, err := g.open("/mine/echo")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseNow()
	for i := range 10 {
		put(t, rest, fmt.Sprint("/other-", i), u.URL)
		put(t, rest, "/mine", u.URL)
		if err := echo(socket, "still here"); err != nil {
			t.Fatal(err)
		}
	}
	if err := ownPages(g, u); err != nil {
		t.Error(err)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := ending(socket); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the socket ended with %v; want 1012", err)
	}
	<-read
	if err := p.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
}

// addressBehind reads up to the line with the address that is served.
func addressBehind(t *testing.T, lines *bufio.Scanner, what string) string {
	t.Helper()
	for lines.Scan() {
		if line := lines.Text(); strings.Contains(line, "serving") && strings.Contains(line, what) {
			return line[strings.LastIndex(line, "/")+1:]
		}
	}
	t.Fatalf("the program does not say where it serves %s: %v", what, lines.Err())
	return ""
}

// put puts a route by REST.
func put(t *testing.T, rest, path, upstream string) {
	t.Helper()
	body := fmt.Sprintf(`{"path": %q, "stripPath": true, "upstreams": [%q], "meta": %d}`, path, upstream, time.Now().UnixNano())
	r, err := http.NewRequest("PUT", rest+"/v1/route?path="+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, _ := io.ReadAll(response.Body); response.StatusCode >= 300 {
		t.Fatalf("PUT %s: %s %s", path, response.Status, answer)
	}
}

// ending waits for the end of a socket.
func ending(socket *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	_, message, err := socket.Read(ctx)
	if err == nil {
		err = fmt.Errorf("the message %q", message)
	}
	return err
}
