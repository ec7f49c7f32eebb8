package gateways

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// haproxyPeer is HAProxy with a map from paths to backends that is changed over
// its runtime API: no reload. What it cannot take so is a backend that its
// configuration does not have.
var haproxyPeer = &peer{
	name:    "haproxy",
	version: haproxyVersion,
	start:   startHAProxy,
}

func haproxyVersion(ctx context.Context) (string, error) {
	program, err := installed("haproxy")
	if err != nil {
		return "", err
	}
	out, err := versionOf(ctx, program, "-v")
	return strings.TrimPrefix(out, "version "), err
}

func startHAProxy(ctx context.Context, s setup) (*gateway, error) {
	program, err := installed("haproxy")
	if err != nil {
		return nil, err
	}
	routes := filepath.Join(s.dir, "routes.map")
	file, err := writeHAProxy(s, newRouteSet(s.routes))
	if err != nil {
		return nil, err
	}
	g, err := startProcess(ctx, s.addr, s.dir, program, "-db", "-f", file)
	if err != nil {
		return nil, err
	}
	g.change = func(ctx context.Context, put, deleted []string) error {
		var commands []string
		for _, path := range put {
			commands = append(commands, fmt.Sprintf("add map %s %s/ b%d", routes, path, s.backend.index(path)))
		}
		for _, path := range deleted {
			commands = append(commands, fmt.Sprintf("del map %s %s/", routes, path))
		}
		for some := range slices.Chunk(commands, 50) { // a line must fit its buffer
			if err := tellHAProxy(filepath.Join(s.dir, "api"), strings.Join(some, ";")); err != nil {
				return err
			}
		}
		return nil
	}
	return g, nil
}

// tellHAProxy sends commands, and waits until they are done.
func tellHAProxy(socket, commands string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, commands+"\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if text := strings.TrimSpace(string(answer)); err == nil && text != "" {
		err = fmt.Errorf("HAProxy: %.300s", text)
	}
	return err
}

// writeHAProxy writes the configuration and the map.
func writeHAProxy(s setup, routes *routeSet) (file string, err error) {
	var b bytes.Buffer
	for _, path := range routes.list() {
		fmt.Fprintf(&b, "%s/ b%d\n", path, s.backend.index(path))
	}
	if err := os.WriteFile(filepath.Join(s.dir, "routes.map"), b.Bytes(), 0o644); err != nil {
		return "", err
	}
	b.Reset()
	fmt.Fprintf(&b, `global
	maxconn 8000
	hard-stop-after %dms
	stats socket %s/api mode 600 level admin
defaults
	mode http
	http-reuse always
	option forwardfor
	timeout connect 10s
	timeout client 120s
	timeout server 120s
	timeout tunnel 120s
	timeout http-keep-alive 120s
frontend gateway
	bind %s
	use_backend %%[path,map_beg(%s/routes.map)]
`, s.grace/time.Millisecond, s.dir, s.addr, s.dir)
	for i, address := range s.backend.addresses() {
		fmt.Fprintf(&b, "backend b%d\n\tserver only %s pool-max-conn 64\n", i, address)
	}
	file = filepath.Join(s.dir, "haproxy.cfg")
	return file, os.WriteFile(file, b.Bytes(), 0o644)
}
