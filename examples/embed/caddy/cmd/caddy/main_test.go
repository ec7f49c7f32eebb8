package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/examples/embed/embedtest"
)

func TestMain(m *testing.M) { embedtest.TestMain(m, main) }

// TestProgram runs the example's Caddyfile, but for its ports.
func TestProgram(t *testing.T) {
	text, err := os.ReadFile("../../Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	traffic, admin := free(t), free(t)
	config := strings.NewReplacer(
		"127.0.0.1:8080", traffic,
		", http://localhost:8080", "",
		"auto_https off", "auto_https off\n\tadmin "+admin,
	).Replace(string(text))
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	embedtest.ProgramAt(t, traffic, "http://"+admin+"/slipswitch/default", "run", "--config", file, "--adapter", "caddyfile")
}

// free returns an address that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
