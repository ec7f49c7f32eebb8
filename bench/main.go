// Bench runs slipswitch as a whole under load.
//
//	go run ./bench soak
//
// holds sockets open through examples/gateway while routes change and peers
// die, and checks that nothing is lost and nothing grows; -help tells the
// flags. It prints one line of figures; the status is 1 if something was wrong.
// The comparisons with other gateways are benchmarks:
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
	if len(os.Args) < 2 || os.Args[1] != "soak" {
		fmt.Fprintln(os.Stderr, "usage: bench soak [flags]")
		os.Exit(2)
	}
	var s soak
	flags := flag.NewFlagSet("bench soak", flag.ExitOnError)
	flags.DurationVar(&s.during, "for", 10*time.Minute, "how long")
	flags.IntVar(&s.tunnels, "tunnels", 2000, "how many are open at a time")
	flags.IntVar(&s.changes, "changes", 1000, "of routes, each second")
	flags.BoolVar(&s.race, "race", false, "build the gateway with the race detector")
	flags.Parse(os.Args[2:])

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	line, err := s.run(ctx)
	if line != "" {
		fmt.Println(line)
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}
