// Chp takes the place of configurable-http-proxy: its command line, its
// environment, its REST API, its answers. JupyterHub, and whatever else drives
// that proxy, is told to run this one instead:
//
//	c.ConfigurableHTTPProxy.command = ["chp"]
//
// Routes can be kept in a file, or shared, where there a module would be named:
//
//	chp --storage-backend bolt:routes.db
//	chp --storage-backend etcd:http://127.0.0.1:2379
//
// SIGTERM and SIGINT end it with status 0: it closes its sockets with a
// WebSocket close code, within 5 seconds; the second one ends it at once.
// SIGHUP makes it read its certificates again, and ends nothing; nor does a log
// that nobody reads any more.
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
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // else it ends who writes a log that nobody reads

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
