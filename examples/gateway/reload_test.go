package main_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// SIGHUP, which a closed terminal sends, too, ends no socket: it reads again
// what can change. What cannot be read stays as it was.
func TestHangup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process sends signals there")
	}
	dir := t.TempDir()
	tokenFile, certFile, keyFile := filepath.Join(dir, "token"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(tokenFile, "first\n")
	cert, key := newCertificate(t, 1)
	write(certFile, string(cert))
	write(keyFile, string(key))
	g := startCommand(t, exec.Command(program, "-listen=127.0.0.1:0", "-admin=127.0.0.1:0", "-admin-token-file="+tokenFile,
		"-tls-cert="+certFile, "-tls-key="+keyFile, "-log-format=json", "-drain-delay=0s", "-drain-window=5s"), "first")
	server := newIDE(t)
	g.put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To(server.URL)})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	conn := dial(t, "wss://"+g.public+"/echo", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	echoes(t, conn)

	reloads := 0
	hangUp := func(tokens map[string]int) {
		t.Helper()
		g.signal(syscall.SIGHUP)
		reloads++
		programtest.Eventually(t, "the gateway has reloaded", func() bool {
			if g.hasExited() {
				t.Fatalf("the gateway has ended: %v", g.err)
			}
			lines, _ := g.logged("reloaded")
			return len(lines) == reloads
		})
		echoes(t, conn)
		for token, want := range tokens {
			g.token = token
			if status, _ := g.call("GET", "/v1/status", nil, nil); status != want {
				t.Errorf("after %d reloads, token %s: %d; want %d", reloads, token, status, want)
			}
		}
	}
	hangUp(map[string]int{"first": 200}) // nothing has changed

	write(tokenFile, "ada second\nci third\n")
	hangUp(map[string]int{"first": 401, "second": 200, "third": 200, "ada": 401})

	write(tokenFile, "two\nlines\n")
	write(certFile, "no certificate\n")
	hangUp(map[string]int{"two": 401, "lines": 401, "second": 200})
	if err := errors.Join(os.Remove(tokenFile), os.Remove(certFile)); err != nil {
		t.Fatal(err)
	}
	hangUp(map[string]int{"second": 200})
	for _, message := range []string{"admin tokens could not be read again, the last ones stay", "certificate could not be read again, the last one stays"} {
		if lines, _ := g.logged(message); len(lines) < 2 {
			t.Errorf("%d lines %q; want one for each reload that failed", len(lines), message)
		}
	}
	if _, err := os.Stat(tokenFile); err == nil {
		t.Error("a reload has made a token file")
	}
}

// Whoever reads the log may end, and no socket with it.
func TestLogUnread(t *testing.T) {
	g := start(t)
	server := newIDE(t)
	g.put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To(server.URL)})
	conn := dial(t, "ws://"+g.public+"/echo", nil)
	if err := g.log.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // each a line that nobody reads
		dial(t, "ws://"+g.public+"/echo", nil).CloseNow()
		programtest.Eventually(t, "the tunnel's end is logged", func() bool {
			var list struct{ Closes []slipswitch.CloseReport }
			g.must("GET", "/v1/closes", nil, &list)
			return len(list.Closes) == i+1
		})
	}
	echoes(t, conn)
}
