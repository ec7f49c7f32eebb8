package main_test

import (
	"net"
	"net/http"
	"os/exec"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// etcd starts a real one and returns its URL.
func etcd(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Fatal("etcd is not installed: apt-get install etcd-server")
	}
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String()
	}
	client, peer := free(), free()
	cmd := exec.Command("etcd", "--data-dir", t.TempDir(), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--unsafe-no-fsync=true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, "etcd answers", func() bool {
		response, err := http.Get(client + "/health")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return client
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
