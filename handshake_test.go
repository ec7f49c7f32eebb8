package slipswitch_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// TestHandshakeReachesUpstream: what arrives, to the byte, and what comes back.
func TestHandshakeReachesUpstream(t *testing.T) {
	u := startUpstream(t, func(received) string {
		return switching("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
			"Set-Cookie: upstream=1", "Keep-Alive: timeout=5", "Content-Length: 7")
	})
	g := startGateway(t, &slipswitch.Proxy{Middleware: setCookie}, route("/a", u))
	a := g.do("GET /a?x=%zz HTTP/1.1\r\nhost: " + host + ":8443\r\nCONNECTION: keep-alive\r\nConnection: foo , uPGRADE\r\nupgrade: WebSocket\r\n" +
		"Origin: https://" + host + ":8443\r\nCookie: a=b\r\nX-Drop_me: 1\r\nfoo: 1\r\nContent-Length: 0\r\n" +
		"sec-websocket-version: 13\r\nSec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Protocol: chat, superchat\r\n" +
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Extensions: x-other\r\n\r\n")
	if a.StatusCode != 101 {
		t.Fatalf("got %s %q", a.Status, a.body)
	}
	want := "GET /a?x=%zz HTTP/1.1\r\nHost: " + host + ":8443\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Cookie: a=b\r\nOrigin: https://" + host + ":8443\r\n" +
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Extensions: x-other\r\n" +
		"Sec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\nVia: 1.1 slipswitch\r\n" +
		"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: " + host + ":8443\r\nX-Forwarded-Port: 8443\r\nX-Forwarded-Proto: http\r\nX-Real-Ip: 127.0.0.1\r\n\r\n"
	sorted := func(head string) string { // but for the first lines, in any order
		lines := strings.SplitAfter(head, "\r\n")
		slices.Sort(lines[4:])
		return strings.Join(lines, "")
	}
	if got := u.only().head; sorted(got) != sorted(want) {
		t.Errorf("the upstream received\n%s\nwant\n%s", got, want)
	}
	for name, want := range map[string][]string{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Accept": {accept}, "Sec-Websocket-Protocol": {"chat"},
		"Sec-Websocket-Extensions": {"permessage-deflate; server_no_context_takeover"}, "Set-Cookie": {"upstream=1", "session=1"},
		"X-Frame-Options": {"DENY"}, "Keep-Alive": nil, "Content-Length": nil,
	} {
		if got := a.Header[name]; !slices.Equal(got, want) {
			t.Errorf("got %s: %q; want %q", name, got, want)
		}
	}
}

// TestRefusedUpgrade: the upstream's refusal is an ordinary response, the
// client's connection ends with it, and so does the upstream's.
func TestRefusedUpgrade(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 100)
	reply := make(chan string, 1)
	u := startScript(t, func(u *upstream, p *peer) bool {
		r, err := p.request()
		if err != nil {
			return false
		}
		u.keep(r)
		io.WriteString(p.TCPConn, <-reply)
		_, err = p.rest() // not to be the first to close
		ends <- err
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{Middleware: setCookie}, route("/", u))
	for refusal, status := range map[string]int{
		"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\nWWW-Authenticate: Basic\r\nX-Refusal: 1\r\n\r\nlogin":                  401,
		"HTTP/1.1 302 Found\r\nContent-Length: 5\r\nLocation: /login\r\nX-Refusal: 1\r\n\r\nlogin":                                302,
		"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 5\r\nX-Refusal: 1\r\n\r\nlogin":                                         426,
		"HTTP/1.1 503 Unavailable\r\nTransfer-Encoding: chunked\r\nRetry-After: 5\r\nX-Refusal: 1\r\n\r\n5\r\nlogin\r\n0\r\n\r\n": 503,
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: X-Drop\r\nX-Drop: 1\r\nX-Refusal: 1\r\n\r\nlogin":                    200,
		"HTTP/1.1 401 No\r\nContent-Length: 5\r\nConnection: close, x-drop\r\nX-Drop: 1\r\nX-Refusal: 1\r\n\r\nlogin":             401,
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 5\r\nX-Refusal: 1\r\n\r\nlogin":            403,
	} {
		reply <- refusal
		client := g.dial()
		client.send(handshake("/a") + request("GET", "/smuggled") + "\x81\x85\x00\x00\x00\x00GET /")
		a := client.answer("GET")
		if a.StatusCode != status || a.body != "login" || a.err != nil || !a.Close || a.Header.Get("X-Refusal") != "1" ||
			a.Header.Get("X-Drop") != "" || !slices.Equal(a.Header["Set-Cookie"], []string{"session=1"}) {
			t.Errorf("got %s %v %q %v; want %d, closed", a.Status, a.Header, a.body, a.err, status)
		}
		if got, _ := client.rest(); got != "" {
			t.Errorf("behind the refusal came %q", got)
		}
		if target := u.only().target(); target != "/a" {
			t.Errorf("the upstream received %q", target)
		}
		if err := receive(t, "the upstream's connection ends", ends); err != nil {
			t.Errorf("the upstream's connection ended with %v; want EOF", err)
		}
	}
}

// TestTruncatedRefusal must not look complete.
func TestTruncatedRefusal(t *testing.T) {
	for _, reply := range []string{
		"HTTP/1.1 401 Unauthorized\r\nContent-Length: 50\r\n\r\nlogin",
		"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlogin\r\n",
	} {
		u := startScript(t, func(u *upstream, p *peer) bool {
			p.request()
			io.WriteString(p.TCPConn, reply)
			return false
		})
		g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
		client := g.dial()
		client.send(handshake("/a"))
		if got, _ := client.rest(); strings.Contains(got, "0\r\n\r\n") || strings.Contains(got, "Content-Length: 5\r\n") {
			t.Errorf("%q: the client got %q", reply, got)
		}
	}
}

// TestBadSwitches: a 101 that does not answer this handshake opens no tunnel.
func TestBadSwitches(t *testing.T) {
	const offers = "Sec-WebSocket-Protocol: chat"
	for name, reply := range map[string]string{
		"no accept":              "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"wrong accept":           strings.Replace(switching(), accept, "t3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 1),
		"accept in lower case":   strings.Replace(switching(), accept, strings.ToLower(accept), 1),
		"two accepts":            switching("Sec-WebSocket-Accept: " + accept),
		"no Upgrade":             "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + "\r\n\r\n",
		"other Upgrade":          strings.Replace(switching(), "websocket", "h2c", 1),
		"folded Upgrade":         strings.Replace(switching(), "websocket", "web\u017focket", 1),
		"two Upgrades":           switching("Upgrade: websocket"),
		"no Connection":          "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + "\r\n\r\n",
		"other Connection":       strings.Replace(switching(), "Connection: Upgrade", "Connection: close", 1),
		"unoffered subprotocol":  switching("Sec-WebSocket-Protocol: superchat"),
		"two subprotocols":       switching("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat"),
		"list of subprotocols":   switching("Sec-WebSocket-Protocol: chat, chat"),
		"empty subprotocol":      switching("Sec-WebSocket-Protocol: "),
		"unoffered extension":    switching("Sec-WebSocket-Extensions: permessage-deflate"),
		"one extension too many": switching("Sec-WebSocket-Extensions: x-offered; a=b, permessage-deflate"),
		"status line":            strings.Replace(switching(), "HTTP/1.1 101", "HTTP/1.1 1101", 1),
		"other version":          strings.Replace(switching(), "HTTP/1.1", "HTTP/2.0", 1),
		"garbage":                "SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"nothing":                "",
		"no end":                 strings.TrimSuffix(switching(), "\r\n"),
		"long header":            switching("X-Long: " + strings.Repeat("x", 65<<10)),
		"many interim":           strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1100) + switching(),
		"status 0":               strings.Repeat("HTTP/1.1 099 X\r\n\r\n", 9),
	} {
		u := startScript(t, func(u *upstream, p *peer) bool {
			if r, err := p.request(); err == nil {
				u.keep(r)
				io.WriteString(p.TCPConn, reply)
				p.CloseWrite()
				p.rest()
			}
			return false
		})
		g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
		client := g.dial()
		client.send(handshake("/a", offers, "Sec-WebSocket-Extensions: x-offered") + "\x81\x85\x00\x00\x00\x00early" + request("GET", "/smuggled"))
		a := client.answer("GET")
		if a.StatusCode != 502 || !a.Close || a.Header.Get("Proxy-Status") == "" {
			t.Errorf("%s: got %s %v; want 502, closed", name, a.Status, a.Header)
		}
		if got, _ := client.rest(); got != "" {
			t.Errorf("%s: behind the refusal came %q", name, got)
		}
		if target := u.only().target(); target != "/a" {
			t.Errorf("%s: the upstream received %q", name, target)
		}
		if len(g.reports) > 0 || len(slices.Collect(g.Tunnels())) > 0 {
			t.Errorf("%s: a tunnel", name)
		}
	}
}

// TestGoodSwitches look odd, but are valid.
func TestGoodSwitches(t *testing.T) {
	for name, reply := range map[string]string{
		"case":           "HTTP/1.1 101\r\nconnection: keep-alive, UPGRADE\r\nupgrade: WebSocket\r\nsec-websocket-accept: " + accept + "\r\n\r\n",
		"close as well":  strings.Replace(switching("X-Hop: 1"), "Connection: Upgrade", "Connection: close, Upgrade, X-Hop", 1),
		"interim before": strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 8) + switching(),
		"100 before":     "HTTP/1.1 100 Continue\r\n\r\n" + switching(),
		"subprotocol":    switching("Sec-WebSocket-Protocol: superchat"),
		"extensions":     switching("Sec-WebSocket-Extensions: x-two; a=1", "Sec-WebSocket-Extensions: x-one"),
		"long header":    switching("X-Long: " + strings.Repeat("x", 60<<10)),
		"many headers":   switching(strings.TrimSuffix(strings.Repeat("X: y\r\n", 5000), "\r\n")),
	} {
		u := answering(t, reply)
		g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
		a := g.do(handshake("/a", "Sec-WebSocket-Protocol: chat, superchat", "Sec-WebSocket-Extensions: x-one; q, x-two", "Expect: 100-continue"))
		if a.StatusCode != 101 || a.Header.Get("Sec-Websocket-Accept") != accept || a.Header["Link"] != nil || a.Header["X-Hop"] != nil {
			t.Errorf("%s: got %s", name, a.Status)
		}
	}
}

// TestClientVanishesDuringDial: nothing goes on for it.
func TestClientVanishesDuringDial(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{handshake("/a"), request("GET", "/a")} {
		dialing, over := make(chan struct{}, 9), make(chan struct{})
		g := startGateway(t, &slipswitch.Proxy{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialing <- struct{}{}
			select {
			case <-ctx.Done():
			case <-over: // a transport goes on with a dial, for whoever comes next
			}
			return nil, context.Canceled
		}}, slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://10.0.0.1:1", "http://10.0.0.2:1")})
		client := g.dial()
		client.send(raw)
		receive(t, "an upstream is dialled", dialing)
		client.Close()
		until(t, "the request is over", func() bool { return g.running.Load() == 0 })
		if len(dialing) > 0 {
			t.Error("another upstream was dialled for nobody")
		}
		close(over)
	}
}

// TestClientVanishesDuringHandshake: the upstream may still answer, and its
// connection ends if it does not.
func TestClientVanishesDuringHandshake(t *testing.T) {
	t.Parallel()
	asked, ended := make(chan struct{}), make(chan error)
	u := startScript(t, func(u *upstream, p *peer) bool {
		p.head()
		asked <- struct{}{}
		_, err := p.rest()
		ended <- err
		return false
	})
	g := startGateway(t, &slipswitch.Proxy{}, route("/", u))
	client := g.dial()
	client.send(handshake("/a"))
	receive(t, "the upstream is asked", asked)
	client.Close()
	if err := receive(t, "the upstream's connection ends", ended); err != nil {
		t.Errorf("the upstream's connection ended with %v; want EOF", err)
	}
}

// FuzzHandshakeResponse: whatever an upstream answers, the client gets a valid
// response; a 101 only if it answers this handshake, and behind it what the
// upstream has sent behind its own.
func FuzzHandshakeResponse(f *testing.F) {
	f.Add([]byte(switching("Sec-WebSocket-Protocol: chat") + "\x81\x05hello"))
	f.Add([]byte("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + switching("Sec-WebSocket-Extensions: permessage-deflate; x")))
	f.Add([]byte("HTTP/1.1 101\nConnection: keep-alive,upgrade\nUpgrade: WebSocket\nSec-WebSocket-Accept: " + accept + "\n\n\x00"))
	f.Add([]byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin"))
	f.Add([]byte("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlogin\r\n0\r\nX-Trailer: 1\r\n\r\n"))
	f.Add([]byte(switching("Content-Length: 5", "X-Folded: a\r\n b", "X-Bare: a\rb")))
	f.Add([]byte("HTTP/1.1 099 X\r\n\r\nHTTP/1.1 999 X\r\n\r\n"))
	var router slipswitch.Router
	if _, err := router.Update(func(tx *slipswitch.Txn) error {
		tx.Put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://10.0.0.1:1")})
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		ended := make(chan slipswitch.CloseReport, 1)
		proxy := &slipswitch.Proxy{
			Router:       &router,
			DialContext:  func(context.Context, string, string) (net.Conn, error) { return newScripted(reply), nil },
			TunnelClosed: func(r slipswitch.CloseReport) { ended <- r },
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(
			handshake("/", "Sec-WebSocket-Protocol: chat, superchat", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))))
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "10.0.0.9:1"
		w := &hijackable{ResponseRecorder: httptest.NewRecorder(), conn: newScripted(nil)}
		func() {
			defer func() {
				if v := recover(); v != nil && v != http.ErrAbortHandler {
					panic(v)
				}
			}()
			proxy.ServeHTTP(w, r)
		}()
		if !w.hijacked || w.Flushed { // then to end the connection in stages
			if w.Code < 200 || w.Code > 999 {
				t.Fatalf("got %d", w.Code)
			}
			return
		}
		receive(t, "the tunnel ends", ended)
		got := bufio.NewReader(bytes.NewReader(w.conn.written()))
		text := textproto.NewReader(got)
		if line, _ := text.ReadLine(); line != "HTTP/1.1 101 Switching Protocols" {
			t.Fatalf("status line %q", line)
		}
		header, err := text.ReadMIMEHeader()
		if err != nil {
			t.Fatalf("%v in %q", err, w.conn.written())
		}
		h := http.Header(header)
		if !slices.Equal(h["Sec-Websocket-Accept"], []string{accept}) || !slices.Equal(h["Upgrade"], []string{"websocket"}) ||
			!slices.Equal(h["Connection"], []string{"Upgrade"}) || h["Transfer-Encoding"] != nil || h["Content-Length"] != nil {
			t.Errorf("header %v", h)
		}
		if p := h["Sec-Websocket-Protocol"]; len(p) > 1 || len(p) == 1 && p[0] != "chat" && p[0] != "superchat" {
			t.Errorf("subprotocol %q", p)
		}
		if e := h.Get("Sec-Websocket-Extensions"); e != "" && !strings.HasPrefix(strings.TrimLeft(e, ", \t"), "permessage-deflate") {
			t.Errorf("extension %q", e)
		}
		if rest, _ := io.ReadAll(got); !bytes.HasSuffix(reply, rest) {
			t.Errorf("behind the 101 came %q, which is not the end of %q", rest, reply)
		}
	})
}

// A scripted connection gives what it was given to read, and keeps what is
// written.
type scripted struct {
	mu  sync.Mutex
	in  *bytes.Reader
	out bytes.Buffer
}

func newScripted(in []byte) *scripted { return &scripted{in: bytes.NewReader(in)} }

func (c *scripted) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *scripted) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *scripted) written() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Bytes()
}

func (c *scripted) Close() error                     { return nil }
func (c *scripted) CloseWrite() error                { return nil }
func (c *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scripted) SetDeadline(time.Time) error      { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

type hijackable struct {
	*httptest.ResponseRecorder
	conn     *scripted
	hijacked bool
}

func (w *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked = true
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(w.conn)), nil
}

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
