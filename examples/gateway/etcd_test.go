package main_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// etcd starts a real one and returns its URL.
func etcd(t *testing.T) string {
	t.Helper()
	client, _ := mortalEtcd(t)
	return client
}

// mortalEtcd also returns what kills it.
func mortalEtcd(t *testing.T) (client string, kill func()) {
	t.Helper()
	client = freeURL(t)
	kill = startEtcd(t, client)
	programtest.Eventually(t, "etcd answers", func() bool {
		response, err := http.Get(client + "/health")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return client, kill
}

// freeURL returns one at which nothing listens.
func freeURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// startEtcd starts one, and returns what kills it.
func startEtcd(t *testing.T, client string, args ...string) (kill func()) {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		programtest.Missing(t, "etcd: Debian's package etcd-server")
	}
	peer := freeURL(t)
	cmd := exec.Command("etcd", append([]string{"--data-dir", t.TempDir(), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer, "--unsafe-no-fsync=true"}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(kill)
	return kill
}

// By TLS, with a certificate that the cluster asks for.
func TestEtcdByTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := newCertificate(t, 1)
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if err := errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(freeURL(t), "http:", "https:", 1)
	startEtcd(t, url, "--cert-file", certFile, "--key-file", keyFile, "--trusted-ca-file", certFile, "--client-cert-auth")
	p := start(t, "-store=etcd:"+url+"?ca="+certFile+"&cert="+certFile+"&key="+keyFile+"#/routes/")
	programtest.Eventually(t, "the gateway is ready", func() bool {
		var status struct{ Ready bool }
		p.must("GET", "/v1/status", nil, &status)
		return status.Ready
	})
	p.put(slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://127.0.0.1:9")})
}

func TestStoreFlags(t *testing.T) {
	for _, tt := range []struct{ spec, want string }{
		{"etcd", "must be memory, bolt:FILE"},
		{"memory:x", "must be memory, bolt:FILE"},
		{"bolt:", "must be memory, bolt:FILE"},
		{"redis:x", "must be memory, bolt:FILE"},
		{"etcd:127.0.0.1:2379", "must be a URL such as"},
		{"etcd:http://127.0.0.1:1,ftp://127.0.0.1:1", `"ftp://127.0.0.1:1" must be a URL`},
		{"etcd:http://user:secret@127.0.0.1:1", "must not have a user: use the options"},
		{"etcd:http://127.0.0.1:1?insecure=1", `option "insecure" must be one of`},
		{"etcd:http://127.0.0.1:1?ca=x", "are for https"},
		{"etcd:https://127.0.0.1:1?cert=x", "cert and key go together"},
		{"etcd:https://127.0.0.1:1?ca=none.pem", "none.pem"},
		{"etcd:http://127.0.0.1:1?user=x", "user and password-file go together"},
		{"etcd:http://127.0.0.1:1?user=x&user=y", "given once"},
	} {
		out, err := exec.Command(program, "-listen=127.0.0.1:0", "-admin=", "-store="+tt.spec).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: got %v, %s; want %q", tt.spec, err, out, tt.want)
		}
	}
	p := start(t, "-store=memory")
	p.put(slipswitch.Route{Path: "/a", Upstreams: slipswitch.To("http://127.0.0.1:9")})
	if !p.routes()["/a"] {
		t.Error("memory: no route")
	}
}

// Deletions of most routes at once are held back on all gateways, which say so,
// until one of them is told that they are meant.
func TestConfirmForAllGateways(t *testing.T) {
	url := etcd(t)
	one := start(t, "-store=etcd:"+url, "-name=one")
	two := start(t, "-store=etcd:"+url, "-name=two")
	var routes []slipswitch.Route
	var deletions []slipswitch.Change
	for i := range 120 {
		path := fmt.Sprintf("/%03d", i)
		routes = append(routes, slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://127.0.0.1:9")})
		if i < 100 {
			deletions = append(deletions, slipswitch.Change{Delete: &slipswitch.Key{Path: path}})
		}
	}
	one.put(routes...)
	if status, err := one.call("POST", "/v1/batch?wait=all", map[string]any{"changes": deletions}, nil); status != http.StatusAccepted {
		t.Errorf("got %d, %v; want 202", status, err)
	}
	type braked struct {
		Held, Routes int
		First        []slipswitch.Key
	}
	held := func(p *process) []braked {
		var status struct{ Stores []struct{ Braked []braked } }
		p.must("GET", "/v1/status", nil, &status)
		return status.Stores[0].Braked
	}
	for _, p := range []*process{one, two} {
		programtest.Eventually(t, "the deletions are held, and shown", func() bool {
			b := held(p)
			return len(b) == 1 && b[0].Held == 100 && b[0].Routes == 120 && len(b[0].First) == 10 && b[0].First[0].Path == "/000"
		})
		if got := len(p.routes()); got != 120 {
			t.Errorf("%d routes; want all 120", got)
		}
	}
	late := start(t, "-store=etcd:"+url, "-name=late") // holds nothing itself
	late.must("POST", "/v1/confirm", nil, nil)
	for _, p := range []*process{one, two} {
		programtest.Eventually(t, "they are made", func() bool { return len(p.routes()) == 20 && len(held(p)) == 0 })
	}
}

// A route that was put for a time goes from all gateways when nobody puts it
// again.
func TestRouteForATime(t *testing.T) {
	url := etcd(t)
	one := start(t, "-store=etcd:"+url, "-name=one")
	two := start(t, "-store=etcd:"+url, "-name=two")
	route := slipswitch.Route{Path: "/ide", Upstreams: slipswitch.To("http://127.0.0.1:9")}
	for _, p := range []*process{one, two, one} {
		p.must("PUT", "/v1/route?path=/ide&ttl=5s&wait=all", route, nil)
	}
	for _, p := range []*process{one, two} {
		if !p.routes()["/ide"] {
			t.Error("a gateway has no route")
		}
	}
	for _, p := range []*process{one, two} {
		programtest.Eventually(t, "the route goes", func() bool { return len(p.routes()) == 0 })
	}
	alone := start(t, "-data="+filepath.Join(t.TempDir(), "routes.db"))
	if status, err := alone.call("PUT", "/v1/route?path=/ide&ttl=2s", route, nil); status != http.StatusNotImplemented {
		t.Errorf("a file: %d, %v; want 501", status, err)
	}
}

// Without etcd a gateway routes on, says how it stands, and answers writes with
// 503 and the reason.
func TestEtcdGone(t *testing.T) {
	url, kill := mortalEtcd(t)
	p := start(t, "-store=etcd:"+url)
	server := newIDE(t)
	p.put(slipswitch.Route{Path: "/ide", StripPath: true, Upstreams: slipswitch.To(server.URL)})
	conn := dial(t, "ws://"+p.public+"/ide/echo", nil)
	kill()
	status, err := p.call("PUT", "/v1/route?path=/new", slipswitch.Route{Path: "/new", Upstreams: slipswitch.To("http://127.0.0.1:9")}, nil)
	if status != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(err), "store: unavailable: etcd at "+url) {
		t.Errorf("a write: %d, %v; want 503 with the reason", status, err)
	}
	programtest.Eventually(t, "the status tells", func() bool {
		var status struct {
			Ready  bool
			Stores []struct{ Error string }
		}
		p.must("GET", "/v1/status", nil, &status)
		return status.Ready && status.Stores[0].Error != ""
	})
	if routes := p.routes(); len(routes) != 1 || !routes["/ide"] {
		t.Errorf("the routes are %v; want /ide", routes)
	}
	echoes(t, conn)
	echoes(t, dial(t, "ws://"+p.public+"/ide/echo", nil))
}

// A gateway is killed while it writes: what it has acknowledged another one
// has, with no batch half, and 100 sockets through that one see nothing.
func TestGatewayKilled(t *testing.T) {
	url := etcd(t)
	server := newIDE(t)
	stays := start(t, "-store=etcd:"+url, "-name=stays")
	stays.put(slipswitch.Route{Path: "/ide", StripPath: true, Upstreams: slipswitch.To(server.URL)})
	var sockets []*numberSocket
	for range 100 {
		sockets = append(sockets, newNumberSocket(t, "ws://"+stays.public+"/ide/numbers"))
	}
	acknowledged := map[string]bool{}
	for round := range 3 {
		dies := start(t, "-store=etcd:"+url, "-name=dies")
		for i := 0; ; i++ {
			if i == 20 {
				time.AfterFunc(time.Duration(rand.IntN(20))*time.Millisecond, func() { dies.cmd.Process.Kill() })
			}
			batch := fmt.Sprintf("/%d-%d", round, i)
			var changes []slipswitch.Change
			for part := range 3 {
				changes = append(changes, slipswitch.Change{Put: &slipswitch.Route{
					Path: fmt.Sprint(batch, "/", part), Upstreams: slipswitch.To("http://127.0.0.1:9")}})
			}
			if _, err := dies.call("POST", "/v1/batch", map[string]any{"changes": changes}, nil); err != nil {
				break
			}
			acknowledged[batch] = true
		}
		programtest.Receive(t, "a gateway that was killed is gone", dies.exited)
		stays.must("PUT", "/v1/route?path=/round", slipswitch.Route{Path: "/round", Upstreams: slipswitch.To(fmt.Sprint("http://round-", round))}, nil)
		stays.must("DELETE", "/v1/route?path=/round", nil, nil) // all before it is there, too
		routes := stays.routes()
		delete(routes, "/ide")
		checkBatches(t, routes, acknowledged)
		goOn(t, sockets)
	}
	if closed, _ := stays.logged("tunnel closed"); len(closed) > 0 {
		t.Errorf("closed: %v", closed)
	}
	for _, s := range sockets {
		close(s.stop)
		if err := programtest.Receive(t, "a socket ends", s.failed); err != nil {
			t.Error(err)
		}
	}
}

// Two gateways on one etcd have one table: what one is told, the other routes.
func TestTwoGatewaysShareEtcd(t *testing.T) {
	url := etcd(t)
	one := start(t, "-store=etcd:"+url, "-name=one")
	two := start(t, "-store=etcd:"+url, "-name=two")
	for i, path := range []string{"/a", "/b", "/c"} {
		writer, reader := one, two
		if i%2 == 1 {
			writer, reader = two, one
		}
		changes := []slipswitch.Change{{Put: &slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://127.0.0.1:9")}}}
		writer.must("POST", "/v1/batch?wait=all", map[string]any{"changes": changes}, nil)
		if !reader.routes()[path] {
			t.Errorf("%s was answered, but the other gateway does not route it", path)
		}
	}
	one.must("DELETE", "/v1/route?path=/a&wait=all", nil, nil)
	if two.routes()["/a"] {
		t.Error("/a was deleted, but the other gateway still routes it")
	}
	late := start(t, "-store=etcd:"+url, "-name=late")
	if got := late.routes(); len(got) != 2 {
		t.Errorf("a gateway that comes later has %v; want /b and /c", got)
	}
}

// etcd is wiped and restarted: however few routes there were, they stay, and so
// do their sockets, until somebody says that this is meant.
func TestEtcdWiped(t *testing.T) {
	url, kill := mortalEtcd(t)
	p := start(t, "-store=etcd:"+url)
	ending := slipswitch.ClosePolicy{Close: true}
	routes := []slipswitch.Route{{Path: "/ide", StripPath: true, Upstreams: slipswitch.To(newIDE(t).URL), OnDelete: ending}}
	for i := range 59 {
		routes = append(routes, slipswitch.Route{Path: fmt.Sprint("/", i), Upstreams: slipswitch.To("http://127.0.0.1:9"), OnDelete: ending})
	}
	p.put(routes...)
	conn := dial(t, "ws://"+p.public+"/ide/echo", nil)
	kill()
	startEtcd(t, url)
	held := p.await("store: deletions held back until they are confirmed", nil)
	if held["store"] != "etcd:"+url || held["routes"] != float64(60) {
		t.Errorf("logged %v; want 60 routes of the store", held)
	}
	if n := len(p.routes()); n != 60 {
		t.Errorf("%d routes are left; want 60", n)
	}
	echoes(t, conn)
	p.must("POST", "/v1/confirm", nil, nil)
	if n := len(p.routes()); n != 0 {
		t.Errorf("%d routes are left; want none, now that it is confirmed", n)
	}
}
