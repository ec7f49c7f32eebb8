package main_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/slipswitch/slipswitch"
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
			<-after
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
	routes := p.routes()
	parts := map[string]int{}
	for path := range routes {
		parts[path[:strings.LastIndexByte(path, '/')]]++
	}
	for batch := range acknowledged {
		if parts[batch] == 0 {
			p.t.Errorf("the acknowledged batch %s is lost", batch)
		}
	}
	for batch, n := range parts {
		if n != 3 {
			p.t.Errorf("of batch %s %d of 3 routes are there", batch, n)
		}
	}
}

// A successor opens the file while its predecessor still drains.
func TestSuccessorTakesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.db")
	release := make(chan struct{})
	workspace := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "done")
	}))
	defer workspace.Close()
	old := start(t, "-data="+file, "-drain-window=20s")
	old.put(slipswitch.Route{Path: "/ide", Upstreams: slipswitch.To(workspace.URL)})
	answer := make(chan string, 1)
	ready := make(chan struct{})
	go func() {
		response, err := client.Get("http://" + old.public + "/ide")
		close(ready)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		var b strings.Builder
		for buf := make([]byte, 64); ; {
			n, err := response.Body.Read(buf)
			b.Write(buf[:n])
			if err != nil {
				answer <- b.String()
				return
			}
		}
	}()
	<-ready
	old.signal(syscall.SIGTERM)
	old.await("draining", nil)
	var successor *process
	eventually(t, "the file is released", func() bool {
		if _, err := os.Stat(file); err != nil {
			return false
		}
		_, err := old.call("GET", "/v1/status", nil, nil)
		return err == nil && old.released()
	})
	successor = start(t, "-data="+file)
	if !successor.routes()["/ide"] {
		t.Error("the successor has no route")
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the predecessor's last answer is %q", got)
	}
	old.wait(0)
}

// released reports whether the gateway has let go of its stores.
func (p *process) released() bool {
	lines, _ := p.logged("the stores are released")
	return len(lines) > 0
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
	eventually(t, "both stores' routes are there", has("/mine", "/team"))
	write("routes:\n- path: /team\n  upstreams: [http://127.0.0.1:9]\n- path: /team2\n  upstreams: [http://127.0.0.1:9]\n")
	eventually(t, "the changed file is there", has("/mine", "/team", "/team2"))
	write("routes:\n- path: /team\n  upstreams: [gopher://127.0.0.1:9]\n")
	var status struct {
		Stores []struct {
			Quarantined []struct{ Where, Error string }
		}
	}
	eventually(t, "a wrong route is in quarantine", func() bool {
		p.must("GET", "/v1/status", nil, &status)
		return len(status.Stores) == 2 && len(status.Stores[1].Quarantined) > 0
	})
	if !has("/mine", "/team")() {
		t.Errorf("a wrong route took itself away, or more: %v", p.routes())
	}
}
