// Bench compares slipswitch with what people use today, and runs it as a whole
// under load.
//
//	go run ./bench routes      looking up and changing routes, against routers
//	go run ./bench gateways    whole programs, against gateways
//	go run ./bench report      makes tables and plots of their results
//	go run ./bench soak        holds sockets open while routes change and peers die
//	go run ./bench killer      ends sockets in all ways, and compares close reports
//
// Each tells its flags with -help. README.md says how it is measured. Soak and
// killer print one line of figures; the status is 1 if something was wrong. Parts
// of the library are compared by benchmarks:
//
//	go test -run '^$' -bench . ./bench
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/gateways"
	"github.com/slipswitch/slipswitch/bench/internal/report"
	"github.com/slipswitch/slipswitch/bench/internal/routes"
	"github.com/slipswitch/slipswitch/bench/internal/run"
)

var commands = map[string]func(ctx context.Context, args []string) error{
	"gateways": gateways.Main,
	"report":   report.Main,
	"routes":   routes.Main,
	"soak":     soakMain,
	"killer":   killerMain,
	"upstream": func(context.Context, []string) error { return upstream() }, // the killer's
}

// parts are what this program is when it has started itself.
func parts() map[string]run.Role {
	all := maps.Clone(gateways.Roles)
	maps.Copy(all, routes.Roles)
	return all
}

func main() {
	run.Play(parts())
	command := commands[""]
	if len(os.Args) > 1 {
		command = commands[os.Args[1]]
	}
	if command == nil {
		fmt.Fprintln(os.Stderr, "usage: bench routes|gateways|report|soak|killer [flags]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[2:]); err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// soakMain prints one line of figures; its error is that something was wrong.
func soakMain(ctx context.Context, args []string) error {
	var s soak
	flags := flag.NewFlagSet("bench soak", flag.ExitOnError)
	flags.DurationVar(&s.during, "for", 10*time.Minute, "how long")
	flags.IntVar(&s.tunnels, "tunnels", 2000, "how many are open at a time")
	flags.IntVar(&s.changes, "changes", 1000, "of routes, each second")
	flags.BoolVar(&s.race, "race", false, "build the gateway with the race detector")
	flags.Parse(args)
	line, err := s.run(ctx)
	if line != "" {
		fmt.Println(line)
	}
	return err
}

// killerMain does, too.
func killerMain(ctx context.Context, args []string) error {
	var k killer
	flags := flag.NewFlagSet("bench killer", flag.ExitOnError)
	flags.DurationVar(&k.during, "for", 5*time.Minute, "how long")
	flags.IntVar(&k.sockets, "sockets", 200, "how many are open at a time")
	flags.BoolVar(&k.race, "race", false, "build the gateway with the race detector")
	flags.Parse(args)
	line, err := k.run(ctx)
	if line != "" {
		fmt.Println(line)
	}
	return err
}
