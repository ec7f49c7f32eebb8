package slipswitch_test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// refuser is a Node server that refuses upgrades in the way that the path
// names. As most programs do, it has no listener for errors of their sockets: one
// error, and it dies. Any other request is answered with how many of the sockets
// are open, and /late lets those be answered that wait for it.
const refuser = `
const no = 'HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno';
const waiting = [];
let open = 0;
const ways = {
	'/end': s => s.end(no),
	'/write, end': s => { s.write(no); s.end(); },
	'/write, destroy': s => { s.write(no); s.destroy(); },
	'/destroy when written': s => { s.once('finish', () => s.destroy()); s.end(no); },
	'/end later': s => setTimeout(() => s.end(no), 20),
	'/write, never end': s => s.write(no),
	'/write, end later': s => { s.write(no); setTimeout(() => s.end(), 20); },
	'/destroy': s => s.destroy(),
	'/invalid 101': s => s.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'),
	'/wait': s => waiting.push(s),
};
const server = require('http').createServer((q, r) => {
	if (q.url == '/late') for (const s of waiting.splice(0)) s.end(no);
	r.end(open + ' open, ' + waiting.length + ' waiting');
});
server.on('upgrade', (q, s) => {
	open++;
	s.on('close', () => open--);
	s.resume();
	ways[decodeURI(q.url)](s);
});
server.listen(0, '127.0.0.1', () => console.log('http://127.0.0.1:' + server.address().port));
`

// TestRefusalsByNode: however a Node server refuses an upgrade, and whenever the
// client leaves, it is not made to fail.
func TestRefusalsByNode(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	cmd := exec.Command(node, "-e", refuser)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	url, err := bufio.NewReader(stdout).ReadString('\n')
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		receive(t, "node ends", exited)
	})
	if err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, &slipswitch.Proxy{}, slipswitch.Route{Path: "/", Upstreams: slipswitch.To(strings.TrimSpace(url))})
	state := func(path string) string {
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("node has died: %v", err)
		default:
		}
		return g.get(path).body
	}
	closed := func(at string) {
		t.Helper()
		until(t, at+": all sockets are closed", func() bool { return strings.HasPrefix(state("/"), "0 open") })
	}
	for way, status := range map[string]int{
		"end": 401, "write, end": 401, "write, destroy": 401, "destroy when written": 401, "end later": 401,
		"write, end later": 401, "destroy": 502,
	} {
		for range 20 {
			if a := g.do(handshake("/" + strings.ReplaceAll(way, " ", "%20"))); a.StatusCode != status {
				t.Errorf("%s: got %s; want %d", way, a.Status, status)
			}
		}
		closed(way)
	}

	// Clients leave before there is an answer.
	var clients []*peer
	for range 20 {
		client := g.dial()
		client.send(handshake("/wait"))
		clients = append(clients, client)
	}
	until(t, "all wait", func() bool { return strings.HasSuffix(state("/"), "20 waiting") })
	for _, client := range clients {
		client.Close()
	}
	until(t, "all have left", func() bool { return g.running.Load() == 0 })
	state("/late")
	closed("left")

	// What the server does not end is hung up on. It does not close it even then,
	// and lives.
	for way, status := range map[string]int{"write, never end": 401, "invalid 101": 502} {
		for range 20 {
			if a := g.do(handshake("/" + strings.ReplaceAll(way, " ", "%20"))); a.StatusCode != status {
				t.Errorf("%s: got %s; want %d", way, a.Status, status)
			}
		}
	}
	until(t, "none lingers", func() bool { return g.Lingering() == 0 })
	state("/")
}
