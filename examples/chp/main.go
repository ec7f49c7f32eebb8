// Chp replaces configurable-http-proxy: it has the same command line, environment
// variables, REST API and answers. JupyterHub, or any other program that runs
// that proxy, is configured to run this one instead:
//
//	c.ConfigurableHTTPProxy.command = ["chp"]
//
// Routes can be kept in a file, or shared, with the option that otherwise names a
// module:
//
//	chp --storage-backend bolt:routes.db
//	chp --storage-backend etcd:http://127.0.0.1:2379
//
// SIGTERM and SIGINT end it with status 0: within 5 seconds it closes its sockets
// with a WebSocket close code. A second signal ends it at once. SIGHUP makes it
// read its certificates again, and ends nothing. It also survives the end of the
// process that reads its log.
package main

import (
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

	o, err := readOptions(os.Args[1:], os.Getenv, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	var s *standIn
	if err == nil {
		s, err = newStandIn(o)
	}
	if err == nil {
		err = s.run(signals, hangups)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
