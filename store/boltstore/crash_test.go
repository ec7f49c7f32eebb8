package boltstore_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
)

func init() { children["write"] = writeUntilKilled }

const (
	crashWriters = 3
	crashWidth   = 8 // routes in a batch
)

// writeUntilKilled is a child: some writers each replace their own routes,
// batch by batch, all of a batch with one version, and print each that is
// acknowledged. With a second argument, it ends after so many.
func writeUntilKilled(args []string) {
	s, err := boltstore.Open(args[0])
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var there map[string]string
	for b := range s.Watch(background, store.Position{}) {
		there = make(map[string]string)
		for _, e := range b.Entries {
			there[e.Owner+":"+e.Key.Path] = strings.TrimPrefix(e.Route.Upstreams[0].URL, "http://v")
		}
		break
	}
	writers, limit := crashWriters, -1
	if len(args) > 1 {
		limit, _ = strconv.Atoi(args[1])
		writers = 1
	}
	ended := make(chan error)
	for w := range writers {
		go func() {
			owner := fmt.Sprint("writer", w)
			version, _ := strconv.Atoi(there[owner+":/0"])
			for n := 0; n != limit; n++ {
				version++
				var changes []slipswitch.Change
				for i := range crashWidth {
					changes = append(changes, put(fmt.Sprint("/", i), fmt.Sprint("v", version)))
				}
				if _, err := s.Write(background, owner, changes...); err != nil {
					ended <- err
					return
				}
				os.Stdout.WriteString(fmt.Sprintf("%s %d\n", owner, version))
			}
			ended <- nil
		}()
	}
	for range writers {
		if err := <-ended; err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	s.Close()
}

// child returns a command that runs this test binary as one of the children.
func child(t *testing.T, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "BOLTSTORE_CHILD="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// A process that is killed while it writes leaves all that it has acknowledged,
// and no half batch; 200 times over, in one file.
func TestKilledWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.db")
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	acknowledged := make(map[string]int)
	total := 0
	for round := range rounds {
		cmd := child(t, "write", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := func() { cmd.Process.Kill() }
		for lines := bufio.NewScanner(out); lines.Scan(); {
			owner, version, _ := strings.Cut(lines.Text(), " ")
			v, err := strconv.Atoi(version)
			if err != nil {
				t.Fatalf("round %d: %s", round, lines.Text())
			}
			if kill != nil { // at any moment, also between two lines
				time.AfterFunc(time.Duration(rand.IntN(10_000))*time.Microsecond, kill)
				kill = nil
			}
			acknowledged[owner] = v
			total++
		}
		if err := cmd.Wait(); err == nil {
			t.Fatalf("round %d: the child ended by itself", round)
		}
		s := open(t, path)
		there := load(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for owner, acked := range acknowledged {
			first := there[owner+":/0"]
			version, _ := strconv.Atoi(strings.TrimPrefix(first, "v"))
			if version != acked && version != acked+1 { // one more may be written, and not yet acknowledged
				t.Fatalf("round %d: %s has acknowledged %d, and the file has %d", round, owner, acked, version)
			}
			acknowledged[owner] = version // the next child goes on from it
			for i := range crashWidth {
				if got := there[fmt.Sprintf("%s:/%d", owner, i)]; got != first {
					t.Fatalf("round %d: %s: a part of a batch: %q and %q", round, owner, first, got)
				}
			}
		}
	}
	t.Logf("%d acknowledged batches in %d rounds", total, rounds)
}
