// Command caddy is Caddy with slipswitch in it. With other modules, too, it is
// built by xcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/slipswitch/slipswitch/examples/embed/caddy"
)

func main() { caddycmd.Main() }
