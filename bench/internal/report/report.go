// Package report makes tables and plots of results.
package report

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// Main is the command. Args are its flags.
func Main(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("bench report", flag.ExitOnError)
	in := flags.String("in", "bench/results", "`directory` with results")
	out := flags.String("out", "", "`directory` for plots and tables (that of the results)")
	readme := flags.String("readme", "bench/README.md", "`file` whose tables, between two marks, are replaced; none if empty")
	flags.Parse(args)
	if *out == "" {
		*out = *in
	}
	gateways, err := run.Read(filepath.Join(*in, "gateways.jsonl"))
	if err != nil {
		return err
	}
	routes, err := run.Read(filepath.Join(*in, "routes.jsonl"))
	if err != nil {
		return err
	}
	if gateways.Rows == nil && routes.Rows == nil {
		return fmt.Errorf("there are no results in %s: bench gateways and bench routes make them", *in)
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	for name, plot := range plots(gateways, routes) {
		if err := os.WriteFile(filepath.Join(*out, name+".svg"), plot, 0o644); err != nil {
			return err
		}
	}
	tables := tables(gateways, routes)
	if err := os.WriteFile(filepath.Join(*out, "tables.md"), []byte(tables), 0o644); err != nil {
		return err
	}
	if *readme == "" {
		return nil
	}
	return replace(*readme, tables)
}

const beginMark, endMark = "<!-- go run ./bench report: begin -->\n", "<!-- end -->\n"

// replace puts tables between the marks of a file.
func replace(file, tables string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), beginMark)
	_, after, found2 := strings.Cut(rest, endMark)
	if !found || !found2 {
		return fmt.Errorf("%s has no place for tables: it needs the lines %q and %q", file, beginMark, endMark)
	}
	return os.WriteFile(file, []byte(before+beginMark+"\n"+tables+"\n"+endMark+after), 0o644)
}
