package gateways

import (
	"bufio"
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
	cli, err := openHAProxy(ctx, filepath.Join(s.dir, "api"))
	if err != nil {
		g.stop()
		return nil, err
	}
	kill := g.stop
	g.stop = func() { kill(); cli.conn.Close() }
	g.change = func(ctx context.Context, put, deleted []string) error {
		var commands []string
		for _, path := range put {
			commands = append(commands, fmt.Sprintf("add map %s %s/ b%d", routes, path, s.backend.index(path)))
		}
		for _, path := range deleted {
			commands = append(commands, fmt.Sprintf("del map %s %s/", routes, path))
		}
		for some := range slices.Chunk(commands, 50) { // a line must fit its buffer
			if err := cli.tell(some...); err != nil {
				return err
			}
		}
		return nil
	}
	return g, nil
}

// A haproxyCLI is the interactive mode of HAProxy's runtime API, in which the
// connection is kept.
type haproxyCLI struct {
	conn net.Conn
	in   *bufio.Reader
}

func openHAProxy(ctx context.Context, socket string) (*haproxyCLI, error) {
	conn, err := net.Dial("unix", socket)
	for err != nil { // it may serve before that is there
		if rest(ctx, 20*time.Millisecond) != nil {
			return nil, err
		}
		conn, err = net.Dial("unix", socket)
	}
	c := &haproxyCLI{conn, bufio.NewReader(conn)}
	if err := c.tell("prompt"); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// tell sends commands as one line, and waits until all are done.
func (c *haproxyCLI) tell(commands ...string) error {
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, strings.Join(commands, ";")+"\n"); err != nil {
		return err
	}
	var complaints strings.Builder
	for range commands { // each is answered by an empty line and the prompt, "> "
		for line := ""; line != "\n"; complaints.WriteString(line) {
			var err error
			if line, err = c.in.ReadString('\n'); err != nil {
				return err
			}
		}
		if _, err := c.in.Discard(2); err != nil {
			return err
		}
	}
	if text := strings.TrimSpace(complaints.String()); text != "" {
		return fmt.Errorf("HAProxy: %.300s", text)
	}
	return nil
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
	stats timeout 1h
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
