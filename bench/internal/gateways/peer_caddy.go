package gateways

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"path/filepath"
)

// caddyPeer is Caddy with a route each, changed over its API. Each change makes
// it build its configuration anew, inside of the process; without
// stream_close_delay it would close all tunnels with it, at once.
var caddyPeer = &peer{
	name:    "caddy",
	reloads: true,
	version: func(context.Context) (string, error) {
		program, err := installed("caddy", "bin/caddy")
		if err != nil {
			return "", err
		}
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return "", err
		}
		return info.Main.Version, nil
	},
	start: func(ctx context.Context, s setup) (*gateway, error) {
		program, err := installed("caddy", "bin/caddy")
		if err != nil {
			return nil, err
		}
		routes := newRouteSet(s.routes)
		config, err := json.Marshal(caddyConfig(s, routes))
		if err != nil {
			return nil, err
		}
		file := filepath.Join(s.dir, "caddy.json")
		if err := os.WriteFile(file, config, 0o644); err != nil {
			return nil, err
		}
		g, err := startProcess(ctx, s.addr, s.dir, program, "run", "--config", file)
		if err != nil {
			return nil, err
		}
		admin := newAPI(g, s.admin)
		g.change = func(ctx context.Context, put, deleted []string) error {
			routes.change(put, deleted)
			config, err := json.Marshal(caddyConfig(s, routes))
			if err != nil {
				return err
			}
			return admin.call(ctx, "POST", "/load", string(config))
		}
		return g, nil
	},
}

type object map[string]any

func caddyConfig(s setup, routes *routeSet) object {
	list := []object{}
	for _, path := range routes.list() {
		list = append(list, object{
			"match":    []object{{"path": []string{path + "/*"}}},
			"terminal": true,
			"handle": []object{{
				"handler":            "reverse_proxy",
				"upstreams":          []object{{"dial": s.backend.address(path)}},
				"stream_close_delay": s.grace.String(),
				"transport":          object{"protocol": "http", "keep_alive": object{"max_idle_conns_per_host": 64}},
			}},
		})
	}
	return object{
		"admin":   object{"listen": s.admin, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"apps": object{"http": object{"servers": object{"gateway": object{
			"listen":          []string{s.addr},
			"automatic_https": object{"disable": true},
			"routes":          list,
		}}}},
	}
}
