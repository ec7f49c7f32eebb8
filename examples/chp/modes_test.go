package main_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/coder/websocket"
)

// A mode is a command line, and what becomes different by it.
type mode struct {
	name    string
	args    func(d *driver) []string // nil: none
	env     []string
	tls     *tls.Config // how the public side is asked; nil: without TLS
	apiTLS  *tls.Config
	sockets bool
	token   string
	oursToo bool // only ours has it

	hostRouting, noPrefix, noPrepend, changeOrigin, noForward bool
	autoRewrite                                               bool
	protocolRewrite                                           string
	header                                                    map[string]string
	withDefault                                               bool // what has no route goes to the second target
	ownErrors                                                 bool // error pages are checked by the mode's own checks

	checks []check // besides those of all modes
}

// A check is one row or bullet of the contract. It fails its test.
type check struct {
	name string
	do   func(d *driver)
}

// A driver is what a check has in its hands.
type driver struct {
	*testing.T
	*process
	mode
	target *target // what routes lead to
	second *target
	pages  *target // for error pages
	dir    string
	extra  string // an address of the mode's own
}

// TestModes makes the checks of all modes in each mode, and the mode's own, of
// both programs, and prints how many have passed.
func TestModes(t *testing.T) {
	var mu sync.Mutex
	passed := make(map[string]map[string]int)
	all, programs := modes(t), both(t)
	t.Run("mode", func(t *testing.T) {
		for _, m := range all {
			for _, p := range programs {
				if p.real && m.oursToo {
					continue
				}
				t.Run(m.name+"/"+p.name, func(t *testing.T) {
					t.Parallel()
					d := newDriver(t, p, m)
					for _, c := range append(everywhere(), m.checks...) {
						ok := t.Run(c.name, func(t *testing.T) {
							one := *d
							one.T = t
							c.do(&one)
						})
						mu.Lock()
						if passed[m.name] == nil {
							passed[m.name] = make(map[string]int)
						}
						if ok {
							passed[m.name][p.name]++
						}
						passed[m.name]["all"] = len(everywhere()) + len(m.checks)
						mu.Unlock()
					}
				})
			}
		}
	})
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "checks passed\tchp\tconfigurable-http-proxy %s\n", chpVersion)
	for _, m := range all {
		n := passed[m.name]
		real := fmt.Sprintf("%d of %d", n["configurable-http-proxy"], n["all"])
		if m.oursToo {
			real = "has no such mode"
		}
		fmt.Fprintf(w, "%s\t%d of %d\t%s\n", m.name, n["chp"], n["all"], real)
	}
	w.Flush()
	t.Logf("the mode matrix\n%s", &table)
	if file := os.Getenv("SLIPSWITCH_CHP_MATRIX"); file != "" { // where .ci/run wants it
		if err := os.WriteFile(file, []byte(table.String()), 0o666); err != nil {
			t.Error(err)
		}
	}
}

func newDriver(t *testing.T, p program, m mode) *driver {
	d := &driver{T: t, mode: m, dir: t.TempDir()}
	d.target, d.second = startTarget(t, "first", "", false), startTarget(t, "second", "", false)
	d.pages = startTarget(t, "pages", "", false)
	var args []string
	if m.args != nil {
		args = m.args(d)
	}
	if d.token != "" {
		d.env = append(d.env, "CONFIGPROXY_AUTH_TOKEN="+d.token)
	}
	d.process = start(t, p, d.mode, args...)
	return d
}

// host is what requests are for.
const host = "hub.example.com"

// An answer is a response, read.
type answer struct {
	*http.Response
	body string
}

// ask sends a request, whatever the URL's package makes of its path: raw is
// exactly what stands in the request line.
func (d *driver) ask(a address, method, raw, body string, header map[string]string) (answer, error) {
	r, err := http.NewRequestWithContext(d.Context(), method, a.url("/"), strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.URL.Opaque = raw
	if path, query, found := strings.Cut(raw, "?"); found {
		r.URL.Opaque, r.URL.RawQuery = path, query
	}
	for name, value := range header {
		if r.Header.Add(name, value); name == "Host" {
			r.Host = value
		}
	}
	client := a.client()
	response, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response, string(text)}, err
}

// rest asks the API, and wants a status.
func (d *driver) rest(status int, method, path, body string) answer {
	d.Helper()
	header := map[string]string{}
	if d.token != "" {
		header["Authorization"] = "token " + d.token
	}
	got, err := d.ask(d.api, method, path, body, header)
	if err != nil {
		d.Fatalf("%s %s: %v", method, path, err)
	}
	if got.StatusCode != status {
		d.Fatalf("%s %s: got %d %q; want %d", method, path, got.StatusCode, got.body, status)
	}
	return got
}

// route is the API's path for a route, which names the host in host routing.
func (d *driver) route(path string) string {
	if d.hostRouting {
		path = "/" + host + path
	}
	return "/api/routes" + path
}

// put puts a route to a target.
func (d *driver) put(path, target string) {
	d.Helper()
	d.rest(201, "POST", d.route(path), fmt.Sprintf(`{"target":%q}`, target))
}

// data is a route as the API shows it.
func (d *driver) data(path string) map[string]any {
	d.Helper()
	var data map[string]any
	if got := d.rest(200, "GET", d.route(path), ""); json.Unmarshal([]byte(got.body), &data) != nil {
		d.Fatalf("GET %s: got %q; want JSON", path, got.body)
	}
	return data
}

// list is what the API shows of all routes.
func (d *driver) list(query string) map[string]map[string]any {
	d.Helper()
	var routes map[string]map[string]any
	got := d.rest(200, "GET", "/api/routes"+query, "")
	if err := json.Unmarshal([]byte(got.body), &routes); err != nil || got.Header.Get("Content-Type") != "application/json" {
		d.Fatalf("GET /api/routes%s: got %s %q; want JSON", query, got.Header.Get("Content-Type"), got.body)
	}
	return routes
}

// get asks the public side.
func (d *driver) get(status int, raw string, fields ...string) answer {
	d.Helper()
	return d.send(status, "GET", raw, "", fields...)
}

// send is get with a method and a body; fields are names and values.
func (d *driver) send(status int, method, raw, body string, fields ...string) answer {
	d.Helper()
	header := map[string]string{"Host": host}
	for i := 0; i < len(fields); i += 2 {
		header[fields[i]] = fields[i+1]
	}
	got, err := d.ask(d.public, method, raw, body, header)
	if err != nil {
		d.Fatalf("%s %s: %v", method, raw, err)
	}
	if got.StatusCode != status {
		d.Fatalf("%s %s: got %d %q; want %d", method, raw, got.StatusCode, got.body, status)
	}
	return got
}

// saw decodes what a target has seen.
func (d *driver) saw(text string) seen {
	d.Helper()
	var s seen
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		d.Fatalf("got %q; want what the target has seen", text)
	}
	return s
}

// forwarded is what a target sees of a path below a route.
func (d *driver) forwarded(route, rest string) string {
	if d.noPrefix {
		if rest == "" || rest[0] != '/' {
			return "/" + rest
		}
		return rest
	}
	return route + rest
}

// dial opens a WebSocket and returns what the target has seen of it.
func (d *driver) dial(raw string, fields ...string) (*websocket.Conn, seen) {
	d.Helper()
	conn, response, err := d.tryDial(raw, fields...)
	if err != nil {
		d.Fatalf("WebSocket %s: %v, %v", raw, response, err)
	}
	d.Cleanup(func() { conn.CloseNow() })
	return conn, d.saw(d.read(conn))
}

func (d *driver) tryDial(raw string, fields ...string) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	header := make(http.Header)
	for i := 0; i < len(fields); i += 2 {
		header.Add(fields[i], fields[i+1])
	}
	client := d.public.client()
	client.Timeout = 0
	return websocket.Dial(ctx, strings.Replace(d.public.url(raw), "http", "ws", 1),
		&websocket.DialOptions{HTTPClient: client, HTTPHeader: header, Host: host, Subprotocols: []string{"two"}})
}

func (d *driver) read(conn *websocket.Conn) string {
	d.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, message, err := conn.Read(ctx)
	if err != nil {
		d.Fatalf("read: %v", err)
	}
	return string(message)
}

// talk sends a message and wants it back.
func (d *driver) talk(conn *websocket.Conn, message string) {
	d.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		d.Fatalf("write: %v", err)
	}
	if got := d.read(conn); got != message {
		d.Fatalf("got %q; want %q", got, message)
	}
}

// ends waits for a WebSocket's end, and returns its close code.
func (d *driver) ends(conn *websocket.Conn) websocket.StatusCode {
	d.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, _, err := conn.Read(ctx); err != nil {
			if ctx.Err() != nil {
				d.Fatal("the WebSocket does not end")
			}
			return websocket.CloseStatus(err)
		}
	}
}

// nothing asks for what has no route.
func (d *driver) nothing(raw string) {
	d.Helper()
	if !d.withDefault {
		d.get(404, raw)
	} else if got := d.saw(d.get(200, raw).body).Name; got != "second" {
		d.Errorf("GET %s: by the %s target; want the default one", raw, got)
	}
}

// stamp is a route's last activity.
func (d *driver) stamp(path string) time.Time {
	d.Helper()
	text, _ := d.data(path)["last_activity"].(string)
	at, err := time.Parse("2006-01-02T15:04:05.000Z", text)
	if err != nil {
		d.Fatalf("last_activity %q: %v", text, err)
	}
	return at
}

// wrote writes a file into the driver's directory.
func (d *driver) wrote(name, text string) {
	d.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
}
