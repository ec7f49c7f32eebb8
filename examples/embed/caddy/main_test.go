package caddyslipswitch_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/coder/websocket"
	caddyslipswitch "github.com/slipswitch/slipswitch/examples/embed/caddy"
)

const wait = 20 * time.Second

// A process has one Caddy, and so do these tests: none of them is parallel.

// TestMain fails on what slipswitch leaves behind. Caddy itself leaves more.
func TestMain(m *testing.M) {
	code := m.Run()
	var stacks strings.Builder
	for end := time.Now().Add(wait); code == 0; time.Sleep(time.Millisecond) {
		stacks.Reset()
		pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		if !strings.Contains(stacks.String(), "/slipswitch.") && !strings.Contains(stacks.String(), "/slipswitch/internal/") {
			break
		}
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, "leaked goroutines:", stacks.String())
			code = 1
		}
	}
	os.Exit(code)
}

// An instance is a Caddy that runs here.
type instance struct {
	t     *testing.T
	addr  string // of traffic
	admin string // the socket of Caddy's own API
}

// start runs Caddy with a site whose directives are given, until the test is
// over.
func start(t *testing.T, directives string) *instance {
	t.Helper()
	c := &instance{t: t, admin: filepath.Join(t.TempDir(), "admin")}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	for attempt := 0; ; attempt++ {
		// Caddy cannot tell which port it got for 0, and would take another one at
		// each reload.
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.addr = free.Addr().String()
		free.Close()
		if err = c.load(directives); err == nil {
			return c
		}
		if attempt == 5 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

// load loads the configuration, or another one.
func (c *instance) load(directives string, options ...string) error {
	text := fmt.Sprintf("{\n\tadmin \"unix/%s\"\n\tauto_https off\n\tpersist_config off\n%s\n}\nhttp://%s {\n\tlog\n%s\n\trespond /hello hello\n\trespond \"no page\" 404\n}\n",
		c.admin, strings.Join(options, "\n"), c.addr, directives)
	config, err := adapt(text)
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

func (c *instance) reload(directives string, options ...string) {
	c.t.Helper()
	if err := c.load(directives, options...); err != nil {
		c.t.Fatal(err)
	}
}

// adapt turns a Caddyfile into JSON.
func adapt(text string) ([]byte, error) {
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	for _, w := range warnings {
		if w.Directive != "" { // else it is about its format
			return config, fmt.Errorf("%v", w)
		}
	}
	return config, err
}

// ask returns an answer's status and body.
func (c *instance) ask(path string) (int, string) {
	c.t.Helper()
	r, err := http.NewRequest("GET", "http://"+c.addr+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("X-Forwarded-For", "198.51.100.1")
	r.Close = true
	return c.do(http.DefaultClient, r)
}

// do sends a request again where nobody answers: behind a reload a connection
// may have come to the listener that goes.
func (c *instance) do(client *http.Client, r *http.Request) (int, string) {
	c.t.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		response, err := client.Do(r)
		if err == nil {
			return read(c.t, response)
		}
		if time.Now().After(end) {
			c.t.Fatal(err)
		}
		if r.GetBody != nil {
			r.Body, _ = r.GetBody()
		}
	}
}

// want asks until the answer is this one: for a moment behind a reload Caddy
// also serves by the former configuration.
func (c *instance) want(path string, status int, body string) {
	c.t.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		gotStatus, got := c.ask(path)
		if gotStatus == status && got == body {
			return
		}
		if time.Now().After(end) {
			c.t.Errorf("%s: got %d %q; want %d %q", path, gotStatus, got, status, body)
			return
		}
	}
}

// rest asks Caddy's admin endpoint.
func (c *instance) rest(method, target, body string) (int, string) {
	c.t.Helper()
	client := &http.Client{Timeout: wait, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.admin)
		},
	}}
	r, err := http.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return c.do(client, r)
}

func read(t *testing.T, response *http.Response) (int, string) {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// A socket is a WebSocket to an upstream that echoes.
type socket struct {
	*websocket.Conn
	t *testing.T
}

func (c *instance) open(path string) socket {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+c.addr+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.CloseNow() })
	return socket{conn, c.t}
}

// lives wants an answer to a message.
func (s socket) lives(when string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := s.Write(ctx, websocket.MessageText, []byte(when)); err != nil {
		s.t.Fatalf("%s: %v", when, err)
	}
	if _, got, err := s.Read(ctx); err != nil || string(got) != when {
		s.t.Fatalf("%s: got %q, %v", when, got, err)
	}
}

// ends wants the socket to be closed with a code.
func (s socket) ends(code websocket.StatusCode) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if _, _, err := s.Read(ctx); websocket.CloseStatus(err) != code {
		s.t.Errorf("the socket ended with %v; want %d", err, code)
	}
}

// gone waits until a name has no router any more.
func gone(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(wait); caddyslipswitch.RouterOf(name) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is still there", name)
		}
	}
}

func init() {
	caddy.RegisterModule(timeout{})
	httpcaddyfile.RegisterHandlerDirective("test_timeout", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return timeout{}, timeout{}.UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("test_timeout", httpcaddyfile.Before, "redir")
}

// timeout is an http.TimeoutHandler as a handler of Caddy's.
type timeout struct{}

func (timeout) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_timeout", New: func() caddy.Module { return new(timeout) }}
}

func (timeout) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (timeout) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	var err error
	http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err = next.ServeHTTP(w, r); err != nil {
			w.WriteHeader(err.(caddyhttp.HandlerError).StatusCode)
		}
	}), time.Minute, "").ServeHTTP(w, r)
	return nil
}
