package filestore_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store/filestore"
	"github.com/slipswitch/slipswitch/store/storetest"
	"go.uber.org/goleak"
)

const childEnv = "FILESTORE_CHILD" // the directory that the child writes to

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if name := os.Getenv(childEnv + "_OWN"); name != "" {
			if err := writeOwn(dir, name); err != nil {
				fmt.Println("error", err)
			}
			return
		}
		fmt.Println("error", writeUntilKilled(dir))
		return
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // for all without a logger of their own
	goleak.VerifyTestMain(m)
}

// batch replaces all routes of the writer's.
func batch(version int) (changes []slipswitch.Change) {
	for i := range 8 {
		changes = append(changes, slipswitch.Change{Put: &slipswitch.Route{
			Path: fmt.Sprint("/writer/", i), Upstreams: slipswitch.To(fmt.Sprint("http://v", version))}})
	}
	return changes
}

// writeUntilKilled is a child, which prints each version that is acknowledged.
func writeUntilKilled(dir string) error {
	s, err := filestore.Open(dir)
	if err != nil {
		return err
	}
	first, _ := strconv.Atoi(os.Getenv(childEnv + "_FIRST"))
	last, _ := strconv.Atoi(os.Getenv(childEnv + "_LAST")) // 0: there is none
	for version := first; last == 0 || version <= last; version++ {
		if _, err := s.Write(context.Background(), "", batch(version)...); err != nil {
			return err
		}
		os.Stdout.WriteString(fmt.Sprintln("acknowledged", version))
	}
	return nil
}

// A process that is killed while it writes leaves whole batches, and all that
// it has acknowledged. The gateway that watches sees no part of one, and its
// 100 WebSockets see nothing.
func TestWriterKilled(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	r := newRig(t)
	sockets := storetest.NewSockets(t)
	r.write("sockets.json", fmt.Sprintf(`[{"path":"/sockets","upstreams":[%q]}]`, sockets.Upstream))
	r.want([]string{":/sockets=" + strings.TrimPrefix(sockets.Upstream, "http://")}, nil)
	sockets.Open(r.Router, 100)

	// version returns that of all routes.
	version := func() (version string) {
		n := 0
		for e := range r.Router.Table().All() {
			if e.Key().Path == "/sockets" {
				continue
			}
			if got := e.Route().Upstreams[0].URL; n > 0 && got != version {
				t.Fatalf("a part of a batch: %s and %s", version, got)
			} else {
				version = got
			}
			n++
		}
		if n != 0 && n != 8 {
			t.Fatalf("%d of 8 routes of a batch", n)
		}
		return strings.TrimPrefix(version, "http://v")
	}
	last := 0
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+r.dir, fmt.Sprint(childEnv, "_FIRST=", last+1))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := 0
		for lines := bufio.NewScanner(out); lines.Scan(); version() {
			what, number, _ := strings.Cut(lines.Text(), " ")
			if what != "acknowledged" {
				t.Fatalf("round %d: %s", round, lines.Text())
			}
			if acknowledged == 0 { // at any moment from here on
				time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, func() { cmd.Process.Kill() })
			}
			acknowledged, _ = strconv.Atoi(number)
		}
		if err := cmd.Wait(); err == nil || acknowledged == 0 {
			t.Fatalf("round %d: the child ended by itself", round)
		}
		for deadline := time.Now().Add(20 * time.Second); ; {
			if last, _ = strconv.Atoi(version()); last >= acknowledged {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("round %d: acknowledged is %d, and the table has %d; status %+v", round, acknowledged, last, r.Status())
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			r.Wait(ctx, r.Status().Revision+1)
			cancel()
		}
		if last > acknowledged+1 {
			t.Fatalf("round %d: acknowledged is %d, and the table has %d", round, acknowledged, last)
		}
	}
}
