package embedtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
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
	runsMain = "SLIPSWITCH_EMBED_MAIN" // tells a test's binary to be the program
	token    = "secret"
)

// TestMain runs a program's tests, and fails if they leave goroutines behind.
// For Program the binary is also the program itself.
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

// Program runs the program: a route is put by REST, a socket opened, other
// routes come and go, and SIGTERM ends the socket with 1012 and the program
// with success.
func Program(t *testing.T) {
	u := startUpstream(t)
	program := exec.Command(os.Args[0], "-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0")
	program.Env = append(os.Environ(), runsMain+"=1", "SLIPSWITCH_ADMIN_TOKEN="+token)
	output, err := program.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Process.Kill() })
	lines := bufio.NewScanner(output)
	g := &Gateway{Addr: addressBehind(t, lines, "traffic")}
	rest := addressBehind(t, lines, "REST")
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(io.Discard, output)
	}()

	put(t, rest, "/ide-7", u.URL)
	socket, err := g.open("/ide-7/echo")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseNow()
	for i := range 10 {
		put(t, rest, fmt.Sprint("/other-", i), u.URL)
		put(t, rest, "/ide-7", u.URL)
		if err := echo(socket, "still here"); err != nil {
			t.Fatal(err)
		}
	}
	if err := ownPages(g, u); err != nil {
		t.Error(err)
	}
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := ending(socket); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the socket ended with %v; want 1012", err)
	}
	<-drained
	if err := program.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
}

// addressBehind reads up to the line that tells where something is served.
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
	r, err := http.NewRequest("PUT", "http://"+rest+"/v1/route?path="+path, strings.NewReader(body))
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

// ending waits for a socket's end.
func ending(socket *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	_, message, err := socket.Read(ctx)
	if err == nil {
		err = fmt.Errorf("the message %q", message)
	}
	return err
}
