package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
)

func init() { children["fail"] = writeThroughFailures }

// writeThroughFailures is a child: it writes batches one after the other, and
// after each of them compares the router with the file. It prints which were
// acknowledged, and which were not.
func writeThroughFailures(args []string) {
	s, err := boltstore.Open(args[0])
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	sync := &store.Sync{Source: s, Router: new(slipswitch.Router)}
	ctx, cancel := context.WithCancel(background)
	done := make(chan struct{})
	go func() { defer close(done); sync.Run(ctx) }()
	count, _ := strconv.Atoi(args[1])
	for version := 1; version <= count; version++ {
		var changes []slipswitch.Change
		for i := range crashWidth {
			changes = append(changes, put(fmt.Sprint("/", i), fmt.Sprint("v", version)))
		}
		_, err := sync.Apply(ctx, "", changes...)
		switch {
		case err == nil:
			fmt.Println("acknowledged", version)
		case errors.Is(err, store.ErrUnavailable) && strings.Contains(err.Error(), args[0]+": input/output error"):
			fmt.Println("failed", version)
		default:
			fmt.Println("unexpected:", err)
		}
		for b, err := range s.Watch(ctx, store.Position{}) {
			if err != nil {
				fmt.Println("unexpected:", err)
				break
			}
			soon, stop := context.WithTimeout(ctx, 20*time.Second)
			sync.Wait(soon, b.Revision)
			stop()
			var file, table []string
			for _, e := range b.Entries {
				file = append(file, e.Key.String()+e.Route.Upstreams[0].URL)
			}
			for e := range sync.Router.Table().All() {
				table = append(table, e.Key().Path+e.Route().Upstreams[0].URL)
			}
			if slices.Sort(file); !slices.Equal(file, table) {
				fmt.Println("unexpected: the table has", table, "and the file", file)
			}
			break
		}
	}
	cancel()
	<-done
	s.Close()
}

// The disk fails now and then, at any call of a commit: such a batch is not
// acknowledged, and there whole or not at all, the same for the file and for
// those who watch. The next ones are kept.
func TestDiskFails(t *testing.T) {
	strace, err := exec.LookPath("strace")
	needs(t, err == nil, "strace (apt-get install strace)")
	const batches = 30
	for _, fault := range []string{ // the first five are of the new file
		"fdatasync:error=EIO:when=6+3", // data, then meta page, in turn
		"pwrite64:error=EIO:when=12+4",
	} {
		t.Run(fault, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "routes.db")
			call, _, _ := strings.Cut(fault, ":")
			cmd := child(t, "fail", "-f", "-o", filepath.Join(t.TempDir(), "trace"), "-e", "trace="+call, "-e", "inject="+fault,
				os.Args[0], path, strconv.Itoa(batches))
			cmd.Path, cmd.Args[0] = strace, strace
			out, err := cmd.Output()
			if err != nil {
				needs(t, !strings.Contains(string(out), "ptrace"), "to be allowed to trace processes")
				t.Fatalf("%v: %s", err, out)
			}
			last, acknowledged, failed := 0, 0, 0
			for line := range strings.Lines(string(out)) {
				what, version, _ := strings.Cut(strings.TrimSpace(line), " ")
				switch what {
				case "acknowledged":
					acknowledged++
					last, _ = strconv.Atoi(version)
				case "failed":
					failed++
				default:
					t.Error(line)
				}
			}
			if acknowledged+failed != batches || failed < batches/5 || acknowledged < batches/5 {
				t.Errorf("%d acknowledged, %d failed; want %d together, and several of each", acknowledged, failed, batches)
			}
			there := load(t, open(t, path))
			first := there[":/0"]
			if version, _ := strconv.Atoi(strings.TrimPrefix(first, "v")); version < last || len(there) != crashWidth {
				t.Errorf("the file has %v; want version %d or a later one", there, last)
			}
			for key, upstream := range there {
				if upstream != first {
					t.Errorf("a part of a batch: %s is of %s, and :/0 of %s", key, upstream, first)
				}
			}
			t.Logf("%d acknowledged, %d failed", acknowledged, failed)
		})
	}
}
