// Gateway is slipswitch as a program: it serves the routes that it gets over
// REST, and no change of routes disturbs a socket.
//
//	go run ./examples/gateway -demo
//
// shows that in a browser. Each flag can also be set in the environment:
// -admin-token as SLIPSWITCH_ADMIN_TOKEN, and so on.
//
// SIGTERM drains the gateway, which then ends with status 0. SIGINT does the same
// without the delay, since nobody at a terminal waits for a load balancer. The
// second of either ends it at once. SIGHUP makes it read the certificate and the
// admin tokens again, and ends nothing. The gateway also survives the end of the
// process that reads its log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // otherwise it ends a process whose log has no reader

	settings, err := readSettings(os.Args[1:], os.LookupEnv, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	g, err := newGateway(ctx, settings)
	stop()
	if err == nil {
		err = g.run(signals, hangups)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}
