package gateways

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// nginxPeer is nginx with a location for each route, as ingress-nginx writes
// them: a reload for each change, old workers until worker_shutdown_timeout.
var nginxPeer = &peer{
	name:    "nginx",
	reloads: true,
	version: func(ctx context.Context) (string, error) {
		program, err := installed("nginx")
		if err != nil {
			return "", err
		}
		return versionOf(ctx, program, "-v")
	},
	start: func(ctx context.Context, s setup) (*gateway, error) {
		program, err := installed("nginx")
		if err != nil {
			return nil, err
		}
		file := filepath.Join(s.dir, "nginx.conf")
		routes := newRouteSet(s.routes)
		if err := os.WriteFile(file, nginxConfig(s, routes), 0o644); err != nil {
			return nil, err
		}
		g, err := startProcess(ctx, s.addr, s.dir, program, "-p", s.dir, "-c", file, "-e", "stderr")
		if err != nil {
			return nil, err
		}
		g.change = func(ctx context.Context, put, deleted []string) error {
			routes.change(put, deleted)
			if err := os.WriteFile(file, nginxConfig(s, routes), 0o644); err != nil {
				return err
			}
			return signalReload(g.pid)
		}
		return g, nil
	},
}

// nginxConfig: keepalive to upstreams as the documentation of ngx_http_upstream_module
// shows it, upgrades as its page on WebSocket proxying does.
func nginxConfig(s setup, routes *routeSet) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `daemon off;
%sworker_processes auto;
worker_rlimit_nofile 20000;
worker_shutdown_timeout %dms;
pid %[3]s/pid;
error_log stderr error;
events { worker_connections 16000; }
http {
	access_log off;
	client_body_temp_path %[3]s/body;
	proxy_temp_path %[3]s/proxy;
	fastcgi_temp_path %[3]s/fastcgi;
	uwsgi_temp_path %[3]s/uwsgi;
	scgi_temp_path %[3]s/scgi;
	keepalive_requests 1000000;
	map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
	proxy_http_version 1.1;
	proxy_set_header Upgrade $http_upgrade;
	proxy_set_header Connection $connection_upgrade;
	proxy_set_header Host $host;
	proxy_set_header X-Real-IP $remote_addr;
	proxy_set_header X-Forwarded-For $remote_addr;
	proxy_read_timeout 120s;
	proxy_send_timeout 120s;
`, userLine(), s.grace/time.Millisecond, s.dir)
	for i, address := range s.backend.addresses() {
		fmt.Fprintf(&b, "\tupstream b%d { server %s; keepalive 64; keepalive_requests 1000000; }\n", i, address)
	}
	fmt.Fprintf(&b, "\tserver {\n\t\tlisten %s backlog=4096;\n", s.addr)
	for _, path := range routes.list() {
		fmt.Fprintf(&b, "\t\tlocation ^~ %s/ { proxy_pass http://b%d; }\n", path, s.backend.index(path))
	}
	b.WriteString("\t}\n}\n")
	return b.Bytes()
}

// userLine keeps the user that started it.
func userLine() string {
	if os.Getuid() == 0 {
		return "user root;\n"
	}
	return ""
}

// A routeSet is the routes of a peer that is given all of them at each change.
type routeSet struct {
	mu    sync.Mutex
	paths map[string]bool
}

func newRouteSet(paths []string) *routeSet {
	r := &routeSet{paths: map[string]bool{}}
	r.change(paths, nil)
	return r
}

func (r *routeSet) change(put, deleted []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, path := range put {
		r.paths[path] = true
	}
	for _, path := range deleted {
		delete(r.paths, path)
	}
}

func (r *routeSet) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.paths))
}
