package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// A defect is something that configurable-http-proxy is known to do, and this
// program must not. What is seen of each program is compared with what must be
// seen; of the real one that is how long "never" may take.
type defect struct {
	name         string
	see          func(d *driver) string
	ours, theirs string
}

// never is how long the real program is waited for where it is known never to
// answer.
const never = 2 * time.Second

// TestDefects: for each known defect the two differ.
func TestDefects(t *testing.T) {
	defects := []defect{
		{"1: a WebSocket to no route", refusedSocket, "404, then the end", "404, then nothing"},
		{"2: malformed % in the API", func(d *driver) string { return d.raw(d.api, "GET /api/routes/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n") }, "400", "nothing"},
		{"3: DELETE without a path", func(d *driver) string {
			return d.raw(d.api, "DELETE /api/routes HTTP/1.1\r\nHost: localhost\r\n"+d.authorization()+"\r\n")
		}, "404", "nothing"},
		{"4: /constructor", func(d *driver) string {
			return d.raw(d.public, "GET /constructor/x HTTP/1.1\r\nHost: "+host+"\r\n\r\n") + " " + d.raw(d.public, "GET /__proto__/x HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		}, "404 404", "500 500"},
		{"5: an invalid target", func(d *driver) string {
			got, _ := d.ask(d.api, "POST", "/api/routes/invalid", `{"target":"not a URL"}`, map[string]string{"Authorization": "token secret"})
			return fmt.Sprint(got.StatusCode, " ", d.raw(d.public, "GET /invalid HTTP/1.1\r\nHost: "+host+"\r\n\r\n"))
		}, "400 404", "201 500"},
		{"6: a body is read before the token", func(d *driver) string {
			return d.raw(d.api, "POST /api/routes/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n{")
		}, "403", "nothing"},
		{"7: the token is found anywhere", func(d *driver) string {
			got, _ := d.ask(d.api, "GET", "/api/routes", "", map[string]string{"Authorization": "Basic nothing; token secret"})
			return got.Status[:3]
		}, "403", "200"},
		{"8: what a target pushes", func(d *driver) string {
			conn, pushed := d.push("/push")
			defer conn.CloseNow()
			return d.counts("/push", pushed)
		}, "activity", "none"},
		{"9: a running download", func(d *driver) string { return d.counts("/download", d.download("/download")) }, "activity", "none"},
		{"10: a truncated body", func(d *driver) string {
			d.put("/cut", d.target.url())
			return d.ended(d.public, "GET /cut/ HTTP/1.1\r\nHost: "+host+"\r\nX-Do: cut\r\n\r\n")
		}, "the end", "nothing"},
		{"11: headers named in Connection", func(d *driver) string {
			d.put("/named", d.target.url())
			got := d.saw(d.get(200, "/named/", "Connection", "X-Private", "X-Private", "1").body)
			return fmt.Sprint("forwarded: ", got.Header["X-Private"] != nil)
		}, "forwarded: false", "forwarded: true"},
		{"12: an offer of h2c", func(d *driver) string {
			d.put("/h2c", d.target.url())
			return d.raw(d.public, "GET /h2c/ HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		}, "200", "the end"},
		{"13: what comes with a handshake", early, "arrives", "lost: nothing"},
		{"14: routes vanish with the process", vanish, "there", "gone"},
		{"15: descriptors leak under refused WebSockets", leaks, "none", "leak"},
		{"a malformed % in a request", func(d *driver) string {
			return d.raw(d.public, "GET /%zz HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		}, "400", "500"},
		{"%00 in a request, and in the API", func(d *driver) string {
			d.put("/zero", d.target.url())
			got, err := d.ask(d.api, "POST", "/api/routes/zero%00x", fmt.Sprintf(`{"target":%q}`, d.target.url()), map[string]string{"Authorization": "token secret"})
			if err != nil {
				return err.Error()
			}
			return fmt.Sprint(d.raw(d.public, "GET /zero/a%00b HTTP/1.1\r\nHost: "+host+"\r\n\r\n"), " ", got.StatusCode)
		}, "400 400", "200 201"},
		{"%2F in a request, as it divides", func(d *driver) string {
			d.put("/divided/a", d.target.url())
			return d.raw(d.public, "GET /divided%2Fa HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		}, "404", "200"},
		{"a subprotocol that nobody has offered", func(d *driver) string {
			u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Sec-WebSocket-Protocol", "unheard-of")
				if conn, err := websocket.Accept(w, r, nil); err == nil {
					conn.CloseNow()
				}
			}))
			defer u.Close()
			d.put("/unheard", u.URL)
			return d.raw(d.public, handshake("/unheard"))
		}, "503", "101"},
		{"--insecure has no effect", func(d *driver) string {
			d.put("/insecure", startTarget(d, "secure", "", true).url())
			return d.raw(d.public, "GET /insecure/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		}, "200", "503"},
	}
	for _, p := range both(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for _, defect := range defects {
				t.Run(defect.name, func(t *testing.T) {
					d := newDriver(t, p, mode{token: "secret", args: is("--insecure")})
					want := defect.ours
					if p.real {
						want = defect.theirs
					}
					if got := defect.see(d); got != want {
						t.Errorf("got %s; want %s", got, want)
					}
				})
			}
		})
	}
}

// TestNoClientNamesItself: what is kept, and logged, of a client is its address,
// whatever it says, though the target gets that, too.
func TestNoClientNamesItself(t *testing.T) {
	d := newDriver(t, ours(), mode{})
	d.put("/ws", d.target.url())
	claim := strings.Repeat("claim", 1000)
	conn, saw := d.dial("/ws/", "X-Real-Ip", claim, "X-Forwarded-For", claim, "Forwarded", "for="+claim)
	if fmt.Sprint(saw.Header["X-Real-Ip"]) != "["+claim+"]" {
		t.Errorf("the target got an X-Real-IP of %d bytes; want %d", len(fmt.Sprint(saw.Header["X-Real-Ip"])), len(claim))
	}
	conn.Close(websocket.StatusNormalClosure, "")
	programtest.Eventually(d, "the end is logged", func() bool { return strings.Contains(d.output.String(), "socket closed") })
	if log := d.output.String(); !strings.Contains(log, "client=127.0.0.1 ") || strings.Contains(log, "claim") {
		t.Errorf("got %.1000q", log)
	}
}

func (d *driver) authorization() string { return "Authorization: token " + d.token + "\r\n" }

// open sends a raw request and returns the connection, on which to wait.
func (d *driver) open(a address, request string) (net.Conn, *bufio.Reader) {
	d.Helper()
	conn, err := a.dial(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.Close() })
	wait := patience
	if d.real {
		wait = never
	}
	conn.SetDeadline(time.Now().Add(wait))
	io.WriteString(conn, request)
	return conn, bufio.NewReader(conn)
}

// raw sends a request and returns the status of its answer, "the end" for none
// and "nothing" for a connection that just stands there.
func (d *driver) raw(a address, request string) string {
	d.Helper()
	_, r := d.open(a, request)
	return d.status(r)
}

func (d *driver) status(r *bufio.Reader) string {
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return end(err)
	}
	if response.ContentLength > 0 {
		io.CopyN(io.Discard, response.Body, response.ContentLength)
	}
	return response.Status[:3]
}

func end(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "nothing"
	}
	return "the end"
}

// ended sends a request and says whether the connection ends behind its answer.
func (d *driver) ended(a address, request string) string {
	d.Helper()
	_, r := d.open(a, request)
	_, err := io.Copy(io.Discard, r)
	if err == nil {
		err = io.EOF
	}
	return end(err)
}

func handshake(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
}

func refusedSocket(d *driver) string {
	_, r := d.open(d.public, handshake("/nothing"))
	status := d.status(r)
	_, err := io.Copy(io.Discard, r)
	if err == nil {
		err = io.EOF
	}
	return status + ", then " + end(err)
}

// counts says whether what do does is activity.
func (d *driver) counts(path string, do func()) string {
	was := d.stamp(path)
	time.Sleep(3 * time.Millisecond) // stamps have steps
	do()
	wait := patience
	if d.real {
		wait = never / 4
	}
	for late := time.Now().Add(wait); time.Now().Before(late); time.Sleep(5 * time.Millisecond) {
		if d.stamp(path).After(was) {
			return "activity"
		}
	}
	return "none"
}

// push opens a WebSocket to a target that sends a message each time that pushed
// is called, which returns when it has come.
func (d *driver) push(path string) (conn *websocket.Conn, pushed func()) {
	push := make(chan string)
	u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for message := range push {
			conn.Write(context.Background(), websocket.MessageText, []byte(message))
		}
	}))
	d.Cleanup(u.Close)
	d.Cleanup(func() { close(push) })
	d.put(path, u.URL)
	conn, _, err := d.tryDial(path)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.CloseNow() })
	return conn, func() {
		push <- "news"
		if got := d.read(conn); got != "news" {
			d.Errorf("got %q", got)
		}
	}
}

// download begins one, and returns what lets a part of it come.
func (d *driver) download(path string) (part func()) {
	parts := make(chan string)
	u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		for part := range parts {
			io.WriteString(w, part)
			http.NewResponseController(w).Flush()
		}
	}))
	d.Cleanup(u.Close)
	d.Cleanup(func() { close(parts) })
	d.put(path, u.URL)
	conn, err := d.public.dial(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host)
	r, body := bufio.NewReader(conn), io.Reader(nil)
	return func() {
		if parts <- "part"; body == nil { // the real one lets the header wait for it
			response, err := http.ReadResponse(r, nil)
			if err != nil {
				d.Fatal(err)
			}
			body = response.Body
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(body, got); err != nil || string(got) != "part" {
			d.Errorf("got %q, %v", got, err)
		}
	}
}

func vanish(d *driver) string {
	store := []string{"--storage-backend", "bolt:" + d.dir + "/routes"}
	if d.real {
		store = nil // it has none that comes with it
	}
	d.process = start(d, d.program, d.mode, store...)
	d.put("/kept", d.target.url())
	d.kill()
	d.process = start(d, d.program, d.mode, store...)
	if d.list("")["/kept"] != nil {
		return "there"
	}
	return "gone"
}

// leaks opens WebSockets to nowhere whose clients stay as long as they are let.
func leaks(d *driver) string {
	descriptors := func() int {
		names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
		if err != nil {
			d.Skip("descriptors cannot be counted here")
		}
		return len(names)
	}
	before := descriptors()
	for range 50 {
		_, r := d.open(d.public, handshake("/nothing"))
		d.status(r)
	}
	wait := patience
	if d.real {
		wait = never
	}
	for late := time.Now().Add(wait); time.Now().Before(late); time.Sleep(10 * time.Millisecond) {
		if descriptors() < before+10 {
			return "none"
		}
	}
	return "leak"
}

// early sends a message with the handshake.
func early(d *driver) string {
	d.put("/early", d.target.url())
	_, r := d.open(d.public, handshake("/early")+"\x81\x85\x00\x00\x00\x00early")
	if got := d.status(r); got != "101" {
		return got
	}
	var got []byte // what the target has seen of the request comes first, then the message
	for !bytes.HasSuffix(got, []byte("\x81\x05early")) {
		b, err := r.ReadByte()
		if err != nil {
			return "lost: " + end(err)
		}
		got = append(got, b)
	}
	return "arrives"
}

// TestCommandLine: what is wrong with it is told, with status 1.
func TestCommandLine(t *testing.T) {
	programs := both(t)
	for _, test := range []struct {
		args string
		says string // a part of what ours says
		both bool   // the real one refuses it, too
	}{
		{args: "--nonsense", says: "nonsense", both: true},
		{args: "--port", says: "port", both: true},
		{args: "nonsense", says: "there are only options", both: true},
		{args: "--custom-header=nonsense", says: "A colon was expected", both: true},
		{args: "--custom-header=Connection:close", says: "Connection cannot be set"},
		{args: "--error-path=/tmp --error-target=http://127.0.0.1", says: "cannot specify both", both: true},
		{args: "--redirect-port=80", says: "certificates not provided", both: true},
		{args: "--socket=/nowhere/socket --port=8000", says: "cannot be used with", both: true},
		{args: "--ssl-key=/nowhere --ssl-cert=/nowhere", says: "no such file", both: true},
		{args: "--storage-backend=nonsense", says: "bolt:FILE or etcd:URL", both: true},
		{args: "--storage-backend=bolt:/nowhere/routes", says: "no such file"},
		{args: "--ssl-allow-rc4", says: "RC4 is not supported"},
		{args: "--ssl-dhparam=/nowhere", says: "leave this out"},
		{args: "--ssl-protocol=SSLv3", says: "SSLv3"},
		{args: "--ssl-ciphers=nonsense", says: "nonsense"},
		{args: "--port=nonsense", says: "a port is a number"},
		{args: "--timeout=soon", says: "a number of milliseconds"},
		{args: "--log-level=loud", says: "debug, info, warn or error"},
		{args: "--default-target=nonsense", says: "it must be a URL"},
		{args: "--error-target=nonsense", says: "it must be a URL"},
		{args: "--protocol-rewrite=gopher", says: "http or https"},
		{args: "--activity=some", says: "all or client"},
	} {
		t.Run(test.args, func(t *testing.T) {
			d := &driver{T: t, process: &process{program: ours()}}
			if out, status := runToEnd(d, strings.Fields(test.args)...); status != 1 || !strings.Contains(strings.ToLower(out), strings.ToLower(test.says)) {
				t.Errorf("status %d, %q; want 1, and it to say %q", status, out, test.says)
			}
			if test.both && len(programs) > 1 {
				d.process = &process{program: programs[1]}
				if out, status := runToEnd(d, strings.Fields(test.args)...); status != 1 {
					t.Errorf("the real one: status %d, %q; want 1", status, out)
				}
			}
		})
	}
	for _, args := range []string{"--help", "-h", "--version", "-V"} {
		for _, p := range programs {
			d := &driver{T: t, process: &process{program: p}}
			out, status := runToEnd(d, args)
			want := "--auto-rewrite"
			if strings.Contains(strings.ToLower(args), "v") {
				want = chpVersion + "\n"
			}
			if status != 0 || !strings.Contains(out, want) {
				t.Errorf("%s %s: status %d, %q; want %q in it", p.name, args, status, out, want)
			}
		}
	}
}

// TestSignal: sockets are told why they end, and the program ends well.
func TestSignal(t *testing.T) {
	d := newDriver(t, ours(), mode{})
	d.put("/signal", d.target.url())
	conn, _ := d.dial("/signal/ws")
	begin := time.Now()
	d.cmd.Process.Signal(syscall.SIGTERM)
	if code := d.ends(conn); code != websocket.StatusServiceRestart {
		t.Errorf("got close code %d; want 1012", code)
	}
	if status, took := d.process.status(), time.Since(begin); status != 0 || took > 10*time.Second {
		t.Errorf("status %d after %v; want 0 after 5s at most", status, took)
	}
}

// TestPIDFile: the file is there while the program is.
func TestPIDFile(t *testing.T) {
	for _, p := range both(t) {
		t.Run(p.name, func(t *testing.T) {
			d := newDriver(t, p, mode{args: func(d *driver) []string { return []string{"--pid-file", d.dir + "/pid"} }})
			file := d.dir + "/pid"
			programtest.Eventually(t, "the pid file is written", func() bool {
				text, _ := os.ReadFile(file)
				return string(text) == fmt.Sprint(d.cmd.Process.Pid)
			})
			d.stop()
			if _, err := os.Stat(file); err == nil {
				t.Error("the pid file is left")
			}
		})
	}
}
