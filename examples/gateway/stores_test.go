package main_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
)

// routes returns the paths of all routes that the gateway has.
func (p *process) routes() map[string]bool {
	p.t.Helper()
	paths := map[string]bool{}
	for after := ""; ; {
		var page struct {
			Routes []struct{ Route slipswitch.Route }
			Next   string
		}
		p.must("GET", "/v1/routes?limit=1000&after="+after, nil, &page)
		for _, r := range page.Routes {
			paths[r.Route.Path] = true
		}
		if after = page.Next; after == "" {
			return paths
		}
	}
}

// Guarantee: an acknowledged change survives kill -9, and no batch is half.
func TestKill9LosesNothingAcknowledged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.db")
	acknowledged, sent := map[string]bool{}, 0
	for range 10 {
		p := start(t, "-data="+file)
		p.check(acknowledged)
		var mu sync.Mutex
		var writers sync.WaitGroup
		after := make(chan struct{}, 1000)
		for writer := range 4 {
			first := sent + writer*1000
			writers.Go(func() {
				for i := first; ; i++ {
					var changes []slipswitch.Change
					for part := range 3 {
						changes = append(changes, slipswitch.Change{Put: &slipswitch.Route{
							Path: fmt.Sprintf("/%d/%d", i, part), Upstreams: slipswitch.To("http://127.0.0.1:9")}})
					}
					if _, err := p.call("POST", "/v1/batch", map[string]any{"changes": changes}, nil); err != nil {
						return // it is dead
					}
					mu.Lock()
					acknowledged[fmt.Sprint("/", i)] = true
					mu.Unlock()
					select {
					case after <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 5 + rand.IntN(40) {
			programtest.Receive(t, "a batch is acknowledged", after)
		}
		p.signal(syscall.SIGKILL)
		writers.Wait()
		<-p.exited
		sent += 4000
	}
	p := start(t, "-data="+file)
	p.check(acknowledged)
	t.Logf("%d acknowledged batches after 10 times kill -9", len(acknowledged))
}

// check fails the test unless each acknowledged batch is there, and each batch
// that is there whole.
func (p *process) check(acknowledged map[string]bool) {
	p.t.Helper()
	checkBatches(p.t, p.routes(), acknowledged)
}

func checkBatches(t testing.TB, routes, acknowledged map[string]bool) {
	t.Helper()
	parts := map[string]int{}
	for path := range routes {
		parts[path[:strings.LastIndexByte(path, '/')]]++
	}
	for batch := range acknowledged {
		if parts[batch] == 0 {
			t.Errorf("the acknowledged batch %s is lost", batch)
		}
	}
	for batch, n := range parts {
		if n != 3 {
			t.Errorf("of batch %s %d of 3 routes are there", batch, n)
		}
	}
}

// A successor with the same flags, started while its predecessor still serves,
// waits for it to drain. Then it has all that was acknowledged, by either, and
// the predecessor's sockets go on until it is their turn.
func TestSuccessorWaitsForTheFile(t *testing.T) {
	const sockets = 60 // ten a second are closed
	file := filepath.Join(t.TempDir(), "routes.db")
	server := newIDE(t)
	old := start(t, "-data="+file, "-drain-delay=3s", "-drain-window=20s")
	old.put(slipswitch.Route{Path: "/ide", StripPath: true, Upstreams: slipswitch.To(server.URL)})
	var open []*websocket.Conn
	for range sockets {
		open = append(open, dial(t, "ws://"+old.public+"/ide/echo", nil))
	}
	acknowledged, refused := map[string]bool{}, 0
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			path := fmt.Sprint("/", i)
			route := slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://127.0.0.1:9")}
			if _, err := old.call("PUT", "/v1/route?path="+path, route, nil); err != nil {
				refused++
			} else {
				acknowledged[path] = true
			}
		}
	}()
	old.signal(syscall.SIGTERM)
	old.await("draining", nil)
	successor := start(t, "-data="+file, "-drain-delay=3s", "-drain-window=20s", "-listen="+old.public, "-admin="+old.admin)
	if waited, _ := successor.logged("waiting for another process to release the routes, such as a gateway that drains"); len(waited) == 0 {
		t.Error("the successor had not to wait")
	}
	alive := 0
	for i, conn := range open {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		conn.Write(ctx, websocket.MessageText, []byte("still there?"))
		_, _, err := conn.Read(ctx)
		cancel()
		switch {
		case err == nil:
			alive++
		case websocket.CloseStatus(err) != websocket.StatusServiceRestart:
			t.Errorf("socket %d: %v; want it open, or closed with 1012", i, err)
		}
	}
	if alive == 0 {
		t.Error("no socket has outlived the start of the successor")
	}
	echoes(t, dial(t, "ws://"+old.public+"/ide/echo", nil)) // by the successor
	mark := len(successor.routes())
	programtest.Eventually(t, "the successor is written to", func() bool { return len(successor.routes()) > mark })
	close(stop)
	programtest.Receive(t, "the writer stops", stopped)
	routes := successor.routes()
	for path := range acknowledged {
		if !routes[path] {
			t.Errorf("%s was acknowledged, and is lost", path)
		}
	}
	for _, conn := range open {
		conn.CloseNow()
	}
	old.wait(0)
	t.Logf("%d of %d sockets alive when the successor serves; %d changes acknowledged, %d refused", alive, sockets, len(acknowledged), refused)
}

// What holds the file and does not drain is waited for only so long; and not
// at all any more after a signal.
func TestFileStaysLocked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.db")
	start(t, "-data="+file)
	for _, signalled := range []bool{false, true} {
		delay := "1s"
		if signalled {
			delay = "1h"
		}
		cmd := exec.Command(program, "-data="+file, "-listen=127.0.0.1:0", "-admin=", "-drain-window=0s", "-drain-delay="+delay)
		log, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for lines := bufio.NewScanner(log); lines.Scan(); {
			fmt.Fprintln(&text, lines.Text())
			if signalled && strings.Contains(lines.Text(), "waiting for another process") {
				cmd.Process.Signal(syscall.SIGTERM)
			}
		}
		err = cmd.Wait()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text.String(), "another process has the file open: "+file) {
			t.Errorf("ended with %v:\n%s\nwant status 1, and the file", err, text.String())
		}
	}
}

// A key that two stores have is the first one's, however long that takes to be
// read.
func TestFirstStoreHasTheKey(t *testing.T) {
	directory, file := t.TempDir(), filepath.Join(t.TempDir(), "routes.db")
	text := []byte("routes:\n- path: /team\n  upstreams: [http://127.0.0.1:9]\n")
	if err := os.WriteFile(filepath.Join(directory, "team.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	routes, err := boltstore.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	changes := []slipswitch.Change{{Put: &slipswitch.Route{Path: "/team", Upstreams: slipswitch.To("http://127.0.0.1:8")}}}
	for i := range 5000 {
		changes = append(changes, slipswitch.Change{Put: &slipswitch.Route{Path: fmt.Sprint("/", i), Upstreams: slipswitch.To("http://127.0.0.1:8")}})
	}
	if _, err := routes.Write(t.Context(), "", changes...); err != nil {
		t.Fatal(err)
	}
	routes.Close()
	for range 3 {
		p := start(t, "-data="+file, "-store=file:"+directory)
		var entry struct{ Route slipswitch.Route }
		p.must("GET", "/v1/route?path=/team", nil, &entry)
		if len(entry.Route.Upstreams) != 1 || entry.Route.Upstreams[0].URL != "http://127.0.0.1:8" {
			t.Errorf("/team is %+v; want the first store's", entry.Route)
		}
		p.signal(syscall.SIGKILL)
		<-p.exited
	}
}

// Two stores feed one gateway: REST writes go to the first, files to the other.
func TestTwoStores(t *testing.T) {
	directory := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(directory, "team.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("routes:\n- path: /team\n  upstreams: [http://127.0.0.1:9]\n")
	p := start(t, "-data="+filepath.Join(t.TempDir(), "routes.db"), "-store=file:"+directory)
	p.put(slipswitch.Route{Path: "/mine", Upstreams: slipswitch.To("http://127.0.0.1:9")})
	has := func(paths ...string) func() bool {
		return func() bool {
			routes := p.routes()
			for _, path := range paths {
				if !routes[path] {
					return false
				}
			}
			return len(routes) == len(paths)
		}
	}
	programtest.Eventually(t, "both stores' routes are there", has("/mine", "/team"))
	write("routes:\n- path: /team\n  upstreams: [http://127.0.0.1:9]\n- path: /team2\n  upstreams: [http://127.0.0.1:9]\n")
	programtest.Eventually(t, "the changed file is there", has("/mine", "/team", "/team2"))
	write("routes:\n- path: /team\n  upstreams: [gopher://127.0.0.1:9]\n")
	var status struct {
		Stores []struct {
			Quarantined []struct{ Where, Error string }
		}
	}
	programtest.Eventually(t, "a wrong route is in quarantine", func() bool {
		p.must("GET", "/v1/status", nil, &status)
		return len(status.Stores) == 2 && len(status.Stores[1].Quarantined) > 0
	})
	if !has("/mine", "/team")() {
		t.Errorf("a wrong route took itself away, or more: %v", p.routes())
	}
}

// What this gateway cannot do is refused, by REST and in files alike, and says
// what to do.
func TestRefusesWhatItCannotDo(t *testing.T) {
	directory := t.TempDir()
	file := "- path: /file\n  upstreams: ['https://127.0.0.1:9']\n  tlsProfile: inside\n"
	if err := os.WriteFile(filepath.Join(directory, "team.yaml"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "-store=memory", "-store=file:"+directory)
	for _, tt := range []struct {
		route slipswitch.Route
		want  string
	}{
		{slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("https://127.0.0.1:9"), TLSProfile: "inside"}, "must be left out: this gateway has no TLS profiles"},
		{slipswitch.Route{Path: "/a", Resolve: true}, "must be false: this gateway has no Resolver; name the upstreams"},
	} {
		status, err := p.call("PUT", "/v1/route?path=/a", tt.route, nil)
		if status != http.StatusBadRequest || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%+v: got %d, %v; want 400: %s", tt.route, status, err, tt.want)
		}
	}
	programtest.Eventually(t, "the file's route is in quarantine", func() bool {
		var status struct{ Stores []store.Status }
		p.must("GET", "/v1/status", nil, &status)
		q := status.Stores[1].Quarantined
		return len(q) == 1 && q[0].Error == "tlsProfile must be left out: this gateway has no TLS profiles"
	})
	if len(p.routes()) != 0 {
		t.Errorf("the gateway has %v", p.routes())
	}
}

// A gateway whose store cannot be reached yet says so, and has nobody believe
// that there is no such route.
func TestStoreNotThereYet(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	url := "http://" + silent.Addr().String()
	p := start(t, "-store=memory", "-store=etcd:"+url)
	p.put(slipswitch.Route{Path: "/there", Upstreams: slipswitch.To(newIDE(t).URL)})
	if waiting := p.await("store: waiting for the first routes", func(l logLine) bool { return l["store"] == "etcd:"+url }); waiting["level"] != "INFO" {
		t.Errorf("logged %v", waiting)
	}
	for path, want := range map[string]int{"/there/": 200, "/not": 503} {
		response, body, err := p.get(path)
		if err != nil || response.StatusCode != want || want == 503 && response.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got %v, %v %s; want %d", path, response, err, body, want)
		}
	}
}

// A report of a socket that ended because its route was deleted leads to who has
// deleted it: by the store's revision, which the API's log line has, too.
func TestReportLeadsToItsCause(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.db")
	p := start(t, "-data="+file)
	p.put(slipswitch.Route{Path: "/ide", StripPath: true, Upstreams: slipswitch.To(newIDE(t).URL), OnDelete: slipswitch.ClosePolicy{Close: true}})
	conn := dial(t, "ws://"+p.public+"/ide/echo", nil)
	echoes(t, conn)
	p.must("DELETE", "/v1/route?path=/ide", nil, nil)
	conn.Read(t.Context())
	report := p.await("tunnel closed", nil)
	changed := p.await("admin: changed", func(l logLine) bool { return l["deleted"] != nil })
	want := fmt.Sprintf("store bolt:%s revision %v", file, changed["revision"])
	if report["why"] != "route deleted" || report["changeOrigin"] != want || report["changeVersion"] != changed["version"] {
		t.Errorf("got %v; want a route deleted, by %q, version %v", report, want, changed["version"])
	}
}
