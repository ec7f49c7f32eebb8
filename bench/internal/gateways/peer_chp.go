package gateways

import (
	"context"
	"net"
	"os"
	"os/exec"
)

// chpPeer is JupyterHub's configurable-http-proxy, changed over its REST API.
// It is one process with one thread.
var chpPeer = &peer{
	name: "chp",
	version: func(ctx context.Context) (string, error) {
		program, err := installed("configurable-http-proxy", "chp/node_modules/.bin/configurable-http-proxy")
		if err != nil {
			return "", err
		}
		return versionOf(ctx, program, "--version")
	},
	start: func(ctx context.Context, s setup) (*gateway, error) {
		program, err := installed("configurable-http-proxy", "chp/node_modules/.bin/configurable-http-proxy")
		if err != nil {
			return nil, err
		}
		ip, port, _ := net.SplitHostPort(s.addr)
		apiIP, apiPort, _ := net.SplitHostPort(s.admin)
		cmd := exec.Command(program, "--ip", ip, "--port", port, "--api-ip", apiIP, "--api-port", apiPort,
			"--log-level", "error", "--no-prepend-path", "--keep-alive-timeout", "620000")
		cmd.Env = append(os.Environ(), "NODE_ENV=production")
		g, err := startCommand(ctx, s.admin, s.dir, cmd) // which it listens on last
		if err != nil {
			return nil, err
		}
		g.addr = s.addr
		var apis [4]*client
		for i := range apis {
			apis[i] = newAPI(g, s.admin)
		}
		g.change = func(ctx context.Context, put, deleted []string) error {
			return inParallel(len(apis), func(worker int) error {
				for i := worker; i < len(put); i += len(apis) {
					if err := apis[worker].call(ctx, "POST", "/api/routes"+put[i], `{"target":"http://`+s.backend.address(put[i])+`"}`); err != nil {
						return err
					}
				}
				for i := worker; i < len(deleted); i += len(apis) {
					if err := apis[worker].call(ctx, "DELETE", "/api/routes"+deleted[i], ""); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.change(ctx, s.routes, nil); err != nil {
			g.stop()
			return nil, err
		}
		return g, nil
	},
}
