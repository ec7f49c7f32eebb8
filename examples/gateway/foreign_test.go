package main_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// A foreign peer is a WebSocket implementation of somebody else's: a program in
// testdata that serves or is a client, on a package that has to be installed.
type foreign struct {
	name, program, script string
	env                   []string
}

// wsVersion is the one that .ci/install installs.
const wsVersion = "8.23.0"

func nodePeer(t *testing.T) foreign {
	t.Helper()
	cache, _ := os.UserCacheDir()
	dir := filepath.Join(cache, "slipswitch")
	env := append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	find := exec.Command("node", "-p", `require("ws/package.json").version`)
	find.Env = env
	if out, err := find.Output(); err != nil || strings.TrimSpace(string(out)) != wsVersion {
		programtest.Missing(t, fmt.Sprintf("Node.js and its package ws %s, and finds %q (%v): npm install --no-save --prefix %s ws@%[1]s", wsVersion, out, err, dir))
	}
	return foreign{"ws", "node", "testdata/peer.cjs", env}
}

func pythonPeer(t *testing.T) foreign {
	t.Helper()
	for _, python := range []string{"/usr/bin/python3", "python3"} { // Debian's own has Debian's packages
		if exec.Command(python, "-c", "import websockets").Run() == nil {
			return foreign{"python3-websockets", python, "testdata/peer.py", append(os.Environ(), "PYTHONUTF8=1")}
		}
	}
	programtest.Missing(t, "Python with its package websockets: Debian's package python3-websockets")
	return foreign{}
}

// lines starts a peer and returns what it prints, line by line. It must have
// ended well at the test's end, or have been ended by the context.
func (f foreign) lines(t *testing.T, ctx context.Context, args ...string) (next func() (line string, more bool)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	cmd := exec.CommandContext(ctx, f.program, append([]string{f.script}, args...)...)
	cmd.Env = f.env
	cmd.WaitDelay = time.Second
	stderr := new(programtest.Buffer)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	t.Cleanup(func() {
		io.Copy(io.Discard, out)
		err := cmd.Wait()
		if err != nil && ctx.Err() == nil || t.Failed() {
			t.Errorf("%s %v: %v\n%s", f.name, args, err, stderr)
		}
		cancel()
	})
	return func() (string, bool) {
		more := scanner.Scan()
		return scanner.Text(), more
	}
}

// What is built on other implementations than ours passes as it is, either way:
// messages of all sizes, compressed or not, whole and in fragments, ping and
// pong, close codes and their reasons.
func TestForeignPeers(t *testing.T) {
	peers := []foreign{nodePeer(t), pythonPeer(t)}
	g := start(t)
	for _, compression := range []string{"deflate", "plain"} {
		for _, server := range peers {
			for _, client := range peers {
				t.Run(fmt.Sprintf("%s/%s-to-%s", compression, client.name, server.name), func(t *testing.T) {
					serving, stop := context.WithCancel(t.Context())
					served := server.lines(t, serving, compression)
					t.Cleanup(stop)
					port, _ := served()
					path := "/" + t.Name()
					g.put(slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://127.0.0.1:" + port)})

					checked := client.lines(t, context.Background(), compression, "ws://"+g.public+path)
					var messages int
					line, _ := checked()
					if _, err := fmt.Sscanf(line, "messages %d", &messages); err != nil {
						t.Fatalf("the client prints %q; want how many messages it has received", line)
					}
					for _, want := range []struct{ line, by string }{
						{"closed 3001 see you – 👋", "client"},
						{"closed 4002 that is – enough", "upstream"},
					} {
						if got, _ := served(); got != want.line {
							t.Errorf("the server prints %q; want %q", got, want.line)
						}
						report := g.await("tunnel closed", func(l logLine) bool { return l["route"] == path && l["by"] == want.by })
						sent, received := report["upstreamMessages"], report["clientMessages"]
						if want.by == "client" && (sent != float64(messages) || received != float64(messages-1)) {
							t.Errorf("%v and %v messages counted; want %d and %d", received, sent, messages-1, messages)
						}
					}
					if line, more := checked(); more {
						t.Errorf("the client prints %q", line)
					}
				})
			}
		}
	}
}
