package main_test

import "testing"

// modes are all command lines.
func modes(t *testing.T) []mode {
	return []mode{
		{name: "plain"},
		{name: "api token", token: "a-secret-token"},
		{name: "unix sockets", sockets: true},
		{name: "host-routing", hostRouting: true, args: is("--host-routing")},
		{name: "no-include-prefix", noPrefix: true, args: is("--no-include-prefix")},
		{name: "no-prepend-path", noPrepend: true, args: is("--no-prepend-path")},
		{name: "change-origin", changeOrigin: true, args: is("--change-origin")},
		{name: "no-x-forward", noForward: true, args: is("--no-x-forward")},
		{name: "auto-rewrite", autoRewrite: true, args: is("--auto-rewrite")},
		{name: "protocol-rewrite", protocolRewrite: "https", args: is("--protocol-rewrite", "https")},
		{name: "custom-header", header: map[string]string{"X-One": "1", "X-Two": "2:3"}, args: is("--custom-header", "X-One:0", "--custom-header= X-One : 1 ", "--custom-header", "X-Two: 2:3")},
	}
}

func is(args ...string) func(*driver) []string { return func(*driver) []string { return args } }
