// Command caddy is Caddy with slipswitch. To add other modules, build it with
// xcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/slipswitch/slipswitch/examples/embed/caddy"
)

func main() { caddycmd.Main() }
