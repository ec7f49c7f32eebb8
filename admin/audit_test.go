package admin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
	"github.com/slipswitch/slipswitch/store"
)

// An auditLog is what an API has logged, line by line.
type auditLog struct {
	mu    sync.Mutex
	lines []map[string]any
}

func (l *auditLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, map[string]any{})
	return len(line), json.Unmarshal(bytes.TrimSpace(line), &l.lines[len(l.lines)-1])
}

func (l *auditLog) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// next waits for the next line and returns it without its time.
func (l *auditLog) next(t *testing.T) (line map[string]any) {
	t.Helper()
	until(t, "a line is logged", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.lines) > 0 {
			line, l.lines = l.lines[0], l.lines[1:]
			delete(line, "time")
			return true
		}
		return false
	})
	return line
}

// Each change is logged with who has asked for it, from where, and what it led
// to; what changes nothing is not.
func TestAudit(t *testing.T) {
	log := new(auditLog)
	tokens := map[string]string{"ci": "c", "ada": "a"}
	g := startGateway(t, &admin.Handler{Token: token, Tokens: func() map[string]string { return tokens }, Logger: log.logger()})
	route := func(path string) string { return fmt.Sprintf(`{"path":%q,"upstreams":[%q]}`, path, g.echo) }
	var many []string
	for i := range 12 {
		many = append(many, fmt.Sprintf(`{"put":%s}`, route(fmt.Sprint("/many/", i))))
	}
	var first []any
	for i := range 10 {
		first = append(first, fmt.Sprint("/many/", i))
	}
	ci, ada := "Authorization: Bearer c", "Authorization: token a"
	for _, step := range []struct {
		method, target, body string
		as                   string
		status               int
		want                 string // "": nothing is logged
	}{
		{"PUT", "/v1/route?path=/a", route("/a"), ci, 201, `"level":"INFO","by":"ci","put":["/a"],"version":1`},
		{"PUT", "/v1/route?path=/a", route("/a"), ada, 200, `"level":"DEBUG","by":"ada","put":["/a"],"version":1`},
		{"GET", "/v1/routes", "", ci, 200, ""},
		{"PUT", "/v1/route?path=/b", route("/a"), ci, 400, ""},
		{"DELETE", "/v1/route?path=/b", "", ci, 404, ""},
		{"DELETE", "/v1/route?path=/a", "", "Authorization: Bearer x", 401, ""},
		{"POST", "/v1/batch", `{"changes":[{"put":` + route("/b") + `},{"delete":{"path":"/a"}}]}`, "", 200, `"level":"INFO","put":["/b"],"deleted":["/a"],"version":2`},
		{"POST", "/v1/batch", `{"replace":true,"changes":[` + strings.Join(many, ",") + `]}`, ada, 200, `"level":"INFO","by":"ada","put":FIRST,"changes":12,"replace":true,"version":3`},
		{"POST", "/api/routes/user/ada", `{"target":"http://10.0.0.7"}`, ci, 201, `"level":"INFO","by":"ci","owner":"chp","put":["/user/ada"],"version":4`},
		{"DELETE", "/api/routes/user/ada", "", ci, 204, `"level":"INFO","by":"ci","owner":"chp","deleted":["/user/ada"],"version":5`},
		{"DELETE", "/v1/tunnels?path=/&code=4000", "", ada, 202, `"level":"INFO","by":"ada","tunnels":1`},
		{"DELETE", "/v1/route?path=/many/0", "", ci, 204, `"level":"INFO","by":"ci","deleted":["/many/0"],"version":6`},
	} {
		if strings.HasPrefix(step.target, "/v1/tunnels") {
			defer g.dial("/many/0").CloseNow()
		}
		var header []string
		if step.as != "" {
			header = []string{step.as}
		}
		g.want(step.status, step.method, step.target, step.body, header...)
		if step.want == "" {
			continue
		}
		list, _ := json.Marshal(first)
		want := map[string]any{"msg": "admin: changed", "request": step.method + " " + step.target}
		if err := json.Unmarshal([]byte("{"+strings.Replace(step.want, "FIRST", string(list), 1)+"}"), &want); err != nil {
			t.Fatal(err)
		}
		got := log.next(t)
		if address, _ := got["address"].(string); !strings.HasPrefix(address, "127.0.0.1:") {
			t.Errorf("%s %s: address %q; want the client's", step.method, step.target, address)
		}
		delete(got, "address")
		if !maps.EqualFunc(got, want, func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
			t.Errorf("%s %s:\ngot  %v\nwant %v", step.method, step.target, got, want)
		}
	}
	if len(log.lines) > 0 {
		t.Errorf("also logged: %v", log.lines)
	}
}

// The report of a tunnel that a change has ended names who asked for it.
func TestAuditOfClose(t *testing.T) {
	log := new(auditLog)
	g := startGateway(t, &admin.Handler{Tokens: func() map[string]string { return map[string]string{"ci": "c"} }, Logger: log.logger()})
	ci := "Authorization: Bearer c"
	g.want(201, "PUT", "/v1/route?path=/a", fmt.Sprintf(`{"path":"/a","upstreams":[%q],"onDelete":{"close":true}}`, g.echo), ci)
	conn := g.dial("/a")
	defer conn.CloseNow()
	g.want(204, "DELETE", "/v1/route?path=/a", "", ci)
	conn.Read(t.Context()) // and answers the Close frame
	log.next(t)
	line := log.next(t)
	until(t, "the tunnel is closed", func() bool { return len(g.proxy.CloseReports()) == 1 })
	change := g.proxy.CloseReports()[0].Change
	want := fmt.Sprintf("admin: %s by ci at %s", line["request"], line["address"])
	if change == nil || change.Origin != want || fmt.Sprint(change.Version) != fmt.Sprint(line["version"]) {
		t.Errorf("the report has change %+v; want origin %q, version %v", change, want, line["version"])
	}
}

// With a store its revision is told, too, and what was not done as it was asked.
func TestAuditStore(t *testing.T) {
	log := new(auditLog)
	var failure error
	routes := &shop{
		apply:   func(string, []slipswitch.Change) error { return failure },
		confirm: func() error { return failure },
	}
	s := serve(t, &admin.Handler{Stores: []admin.Store{routes}, Logger: log.logger()})
	s.want(201, "PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://up"]}`)
	if got := log.next(t); got["revision"] != 7.0 {
		t.Errorf("got %v; want revision 7", got)
	}
	failure = fmt.Errorf("%w: no quorum", store.ErrUnavailable)
	s.want(503, "PUT", "/v1/route?path=/a", `{"path":"/a","upstreams":["http://up"]}`)
	s.want(503, "POST", "/v1/confirm", "")
	for range 2 {
		got := log.next(t)
		if reason, _ := got["error"].(string); got["msg"] != "admin: a change has failed" || !strings.Contains(reason, "no quorum") {
			t.Errorf("got %v; want that it has failed, and why", got)
		}
	}
}
