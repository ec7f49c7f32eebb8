package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// hubPatience is for a JupyterHub on a busy machine.
const hubPatience = 2 * time.Minute

// A hub is a real JupyterHub, with this program where it runs
// configurable-http-proxy.
type hub struct {
	*testing.T
	url, api, token string
	client          *http.Client
	output          *programtest.Buffer
}

const hubConfig = `
c.JupyterHub.bind_url = "http://%[1]s"
c.JupyterHub.hub_bind_url = "http://%[2]s"
c.JupyterHub.db_url = "sqlite:///%[4]s/hub.sqlite"
c.JupyterHub.cookie_secret_file = "%[4]s/cookie_secret"
c.JupyterHub.authenticator_class = "jupyterhub.auth.DummyAuthenticator"
c.DummyAuthenticator.password = "open sesame"
c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = "%[4]s/{username}"
c.Spawner.args = ["--allow-root"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 100

c.ConfigurableHTTPProxy.command = ["%[5]s", "--storage-backend", "bolt:%[4]s/routes.db"]
c.ConfigurableHTTPProxy.api_url = "http://%[3]s"
c.ConfigurableHTTPProxy.auth_token = "%[6]s"
c.ConfigurableHTTPProxy.pid_file = "%[4]s/proxy.pid"
`

// startHub starts a hub and waits until it serves its login page through the
// proxy.
func startHub(t *testing.T) *hub {
	t.Helper()
	for _, program := range []string{"jupyterhub", "jupyterhub-singleuser", "jupyter-notebook"} {
		if _, err := exec.LookPath(program); err != nil {
			programtest.Missing(t, program+": Debian's packages jupyterhub and jupyter-notebook")
		}
	}
	dir, at := t.TempDir(), []string(nil)
	at, _ = freePorts(t, 3)
	h := &hub{T: t, url: "http://" + at[0], api: "http://" + at[2], token: "token-of-the-proxy", output: new(programtest.Buffer)}
	jar, _ := cookiejar.New(nil)
	h.client = &http.Client{Jar: jar, Timeout: hubPatience, Transport: &http.Transport{}}
	config := filepath.Join(dir, "jupyterhub_config.py")
	if err := os.WriteFile(config, fmt.Appendf(nil, hubConfig, at[0], at[1], at[2], dir, built, h.token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "ada"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("jupyterhub", "--config", config)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, h.output, h.output
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(hubPatience):
			cmd.Process.Kill()
			t.Error("the hub does not end")
		}
		if _, err := os.Stat(filepath.Join(dir, "proxy.pid")); err == nil {
			t.Error("the proxy has left its pid file")
		}
		if t.Failed() {
			t.Logf("the hub's output:\n%s", h.output)
		}
	})
	for tick, late := time.NewTicker(100*time.Millisecond), time.After(hubPatience); ; {
		if response, err := h.client.Get(h.url + "/hub/login"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return h
			}
		}
		select {
		case <-tick.C:
		case err := <-exited:
			exited <- err
			t.Fatalf("the hub has ended: %v", err)
		case <-late:
			t.Fatal("the hub does not serve its login page")
		}
	}
}

// cookie returns a cookie for a path.
func (h *hub) cookie(path, name string) string {
	u, _ := url.Parse(h.url + path)
	for _, cookie := range h.client.Jar.Cookies(u) {
		if cookie.Name == name {
			return cookie.Value
		}
	}
	return ""
}

// do asks as the browser would, with the page's XSRF token, and returns where it
// was redirected to in the end.
func (h *hub) do(method, path, contentType, body string) (at, answer string) {
	h.Helper()
	r, _ := http.NewRequestWithContext(h.Context(), method, h.url+path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Referer", h.url+path)
	r.Header.Set("X-XSRFToken", h.cookie(path, "_xsrf"))
	response, err := h.client.Do(r)
	if err != nil {
		h.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.Request.URL.Path, string(text)
}

// rest asks the proxy's API.
func (h *hub) rest(method, path, body string) (status int, answer string) {
	r, _ := http.NewRequest(method, h.api+path, strings.NewReader(body))
	r.Header.Set("Authorization", "token "+h.token)
	response, err := h.client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// churn lets 200 other routes come and go until stop is closed.
func (h *hub) churn(stop <-chan struct{}) (changes int, err error) {
	for i := 0; ; i++ {
		path := fmt.Sprintf("/api/routes/user/other-%d", i%200)
		if status, answer := h.rest("POST", path, fmt.Sprintf(`{"target":"http://127.0.0.1:%d","user":"other"}`, 1+i%60000)); status != 201 {
			return changes, fmt.Errorf("POST %s: %d %s", path, status, answer)
		}
		changes++
		if i >= 200 {
			if status, answer := h.rest("DELETE", path, ""); status != 204 {
				return changes, fmt.Errorf("DELETE %s: %d %s", path, status, answer)
			}
			changes++
		}
		select {
		case <-stop:
			if changes >= 400 {
				return changes, nil
			}
		default:
		}
	}
}

// A jupyterMessage is one of a kernel's, as far as this test is concerned.
type jupyterMessage struct {
	Header       map[string]any `json:"header"`
	ParentHeader map[string]any `json:"parent_header"`
	Metadata     map[string]any `json:"metadata"`
	Content      map[string]any `json:"content"`
	Channel      string         `json:"channel"`
	Buffers      []any          `json:"buffers"`
}

// JupyterHub runs on it unchanged: somebody logs in, gets a server, and
// computes in a kernel, while 200 other routes come and go.
func TestJupyterHub(t *testing.T) {
	h := startHub(t)
	if at, _ := h.do("POST", "/hub/login", "application/x-www-form-urlencoded", url.Values{
		"username": {"ada"}, "password": {"open sesame"}, "_xsrf": {h.cookie("/hub/login", "_xsrf")},
	}.Encode()); at == "/hub/login" {
		t.Fatal("the login has failed")
	}
	stop, churned := make(chan struct{}), make(chan error, 1)
	changes := 0
	go func() {
		n, err := h.churn(stop)
		changes = n
		churned <- err
	}()

	for late := time.Now().Add(hubPatience); ; time.Sleep(200 * time.Millisecond) { // until then the hub's own pages say that it spawns
		at, page := h.do("GET", "/user/ada/tree", "", "")
		if strings.HasPrefix(at, "/user/ada/") {
			break
		} else if time.Now().After(late) {
			t.Fatalf("no server, but %s: %.2000s", at, page)
		}
	}
	_, answer := h.do("POST", "/user/ada/api/kernels", "application/json", `{"name":"python3"}`)
	var kernel struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &kernel); err != nil || kernel.ID == "" {
		t.Fatalf("got %q, %v; want a kernel", answer, err)
	}
	header := http.Header{"Origin": {h.url}}
	conn, response, err := websocket.Dial(t.Context(), h.url+"/user/ada/api/kernels/"+kernel.ID+"/channels",
		&websocket.DialOptions{HTTPClient: &http.Client{Jar: h.client.Jar, Transport: h.client.Transport}, HTTPHeader: header})
	if err != nil {
		t.Fatalf("the kernel's WebSocket: %v, %v", response, err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	for i := range 20 {
		if got, want := h.compute(conn, fmt.Sprintf("6*%d", i+7)), fmt.Sprint(6*(i+7)); got != want {
			t.Errorf("6*%d is %q; want %s", i+7, got, want)
		}
	}
	close(stop)
	if err := <-churned; err != nil {
		t.Error(err)
	}
	if got := h.compute(conn, "6*7"); got != "42" {
		t.Errorf("6*7 is %q after %d changes of routes; want 42", got, changes)
	}
	t.Logf("6*7 is 42 on one socket, through %d changes of 200 other routes", changes)

	status, answer := h.rest("GET", "/api/routes/user/ada", "")
	var data map[string]any
	json.Unmarshal([]byte(answer), &data)
	if status != 200 || data["user"] != "ada" || data["jupyterhub"] != true {
		t.Errorf("the hub's own route: got %d %s; want its extra keys to be kept", status, answer)
	}
}

// compute runs an expression in the kernel, and returns what it is.
func (h *hub) compute(conn *websocket.Conn, code string) string {
	h.Helper()
	id := fmt.Sprint("message-", time.Now().UnixNano())
	err := wsjson.Write(h.Context(), conn, jupyterMessage{
		Header: map[string]any{"msg_id": id, "msg_type": "execute_request", "username": "ada", "session": "test", "version": "5.3", "date": time.Now().UTC().Format(time.RFC3339Nano)},
		Content: map[string]any{"code": code, "silent": false, "store_history": true, "user_expressions": map[string]any{},
			"allow_stdin": false, "stop_on_error": true},
		ParentHeader: map[string]any{}, Metadata: map[string]any{}, Channel: "shell", Buffers: []any{},
	})
	for err == nil {
		var message jupyterMessage
		if err = wsjson.Read(h.Context(), conn, &message); err != nil || message.ParentHeader["msg_id"] != id {
			continue
		}
		switch message.Header["msg_type"] {
		case "execute_result":
			data, _ := message.Content["data"].(map[string]any)
			return fmt.Sprint(data["text/plain"])
		case "error":
			return fmt.Sprint(message.Content["evalue"])
		}
	}
	h.Fatalf("%s: %v", code, err)
	return ""
}
