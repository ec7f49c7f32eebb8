// Bench runs slipswitch as a whole under load.
//
//	go run ./bench soak
//
// holds sockets open through examples/gateway while routes change and peers
// die, and checks that nothing is lost and nothing grows.
//
//	go run ./bench killer
//
// ends sockets in all ways that there are, and compares what it did with the
// gateway's close reports. -help tells the flags of either. It prints one line of
// figures; the status is 1 if something was wrong. The comparisons with other gateways are benchmarks:
//
//	go test -run '^$' -bench . ./bench
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 {
		explain()
	}
	flags := flag.NewFlagSet("bench "+os.Args[1], flag.ExitOnError)
	var line string
	var err error
	switch os.Args[1] {
	case "soak":
		var s soak
		flags.DurationVar(&s.during, "for", 10*time.Minute, "how long")
		flags.IntVar(&s.tunnels, "tunnels", 2000, "how many are open at a time")
		flags.IntVar(&s.changes, "changes", 1000, "of routes, each second")
		flags.BoolVar(&s.race, "race", false, "build the gateway with the race detector")
		flags.Parse(os.Args[2:])
		line, err = s.run(ctx)
	case "killer":
		var k killer
		flags.DurationVar(&k.during, "for", 5*time.Minute, "how long")
		flags.IntVar(&k.sockets, "sockets", 200, "how many are open at a time")
		flags.BoolVar(&k.race, "race", false, "build the gateway with the race detector")
		flags.Parse(os.Args[2:])
		line, err = k.run(ctx)
	case "upstream": // the killer's
		err = upstream()
	default:
		explain()
	}
	if line != "" {
		fmt.Println(line)
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func explain() {
	fmt.Fprintln(os.Stderr, "usage: bench soak|killer [flags]")
	os.Exit(2)
}
