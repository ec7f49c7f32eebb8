package main_test

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// ask asks an address, which may be a Unix socket, for a path under a host.
func ask(t *testing.T, address, host, path string) (status int, text string) {
	t.Helper()
	network := "tcp"
	if filepath.IsAbs(address) {
		network = "unix"
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	r, err := http.NewRequest("GET", "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var b strings.Builder
	if err := response.Write(&b); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, b.String()
}

// The admin API is asked under the names that it is given, and says how when it
// is asked under another.
func TestAdminHosts(t *testing.T) {
	g := start(t, "-admin-hosts=gateway.internal, admin.example.com.")
	for host, want := range map[string]int{
		"gateway.internal": 200, "Gateway.Internal.:8081": 200, "admin.example.com": 200, "localhost": 200, "127.0.0.1": 200, "[::1]:80": 200,
		"internal": 403, "x.gateway.internal": 403, "evil.example": 403,
	} {
		status, text := ask(t, g.admin, host, "/v1/status")
		if status != want || want == 403 && !strings.Contains(text, "-admin-hosts") {
			t.Errorf("under %s: %s; want %d, and how to allow it if that is 403", host, text, want)
		}
	}
}

// Probes have an address of their own, without token or name, with the admin
// API or without it.
func TestHealth(t *testing.T) {
	for _, args := range [][]string{nil, {"-admin="}, {"-health=unix:" + filepath.Join(t.TempDir(), "health")}} {
		g := start(t, append([]string{"-health=127.0.0.1:0"}, args...)...)
		health := g.await("serving probes", nil)["address"].(string)
		for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/": 404, "/v1/status": 404, "/api/routes": 404} {
			if status, text := ask(t, health, "probe.example", path); status != want {
				t.Errorf("%v: GET %s: %s; want %d", args, path, text, want)
			}
		}
	}
}

// The admin API can be at a Unix socket, which web pages do not reach, so that
// any name will do. One that was left behind is taken over, one that is in use
// is not.
func TestAdminSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	g := start(t, "-admin=unix:"+path)
	if status, text := ask(t, g.admin, "gateway", "/v1/status"); status != 200 {
		t.Errorf("got %s; want 200", text)
	}
	out, err := exec.Command(program, "-listen=127.0.0.1:0", "-admin-token=x", "-admin=unix:"+path).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "-admin: "+path+" is in use by another process") {
		t.Errorf("a second gateway: %v, %s", err, out)
	}
	if err := g.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	programtest.Receive(t, "the gateway is gone", g.exited)
	if status, text := ask(t, start(t, "-admin=unix:"+path).admin, "gateway", "/v1/status"); status != 200 {
		t.Errorf("after a kill: got %s; want 200", text)
	}
}
