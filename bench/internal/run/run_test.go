package run_test

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

// Each peer is measured once in each round; one that fails gets one row that
// says why, and is not asked again; the others go on.
func TestRounds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.jsonl")
	r := run.Run{Reps: 3, TimeLimit: time.Hour, Out: file}
	if err := r.Begin(1, map[string]string{"a": "1"}, nil); err != nil {
		t.Fatal(err)
	}
	asked := map[string]int{}
	err := r.End(r.Case(t.Context(), run.Case{Scenario: "s", Weight: 1, Patience: 50 * time.Millisecond, Peers: []string{"a", "broken", "stuck", "idle"},
		Measure: func(ctx context.Context, peer string) (run.Values, run.Series, error) {
			asked[peer]++
			switch peer {
			case "broken":
				return nil, nil, errors.New("no\nmore than this line")
			case "stuck":
				<-ctx.Done()
				return nil, nil, ctx.Err()
			case "idle":
				return run.Values{"ns": math.Inf(1)}, nil, nil
			}
			return run.Values{"x": float64(asked[peer])}, nil, nil
		}}))
	if err != nil {
		t.Fatal(err)
	}
	results, err := run.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if asked["a"] != 3 || asked["broken"] != 1 || asked["stuck"] != 1 || asked["idle"] != 1 {
		t.Errorf("asked %v; want a in each round, the others once", asked)
	}
	na := map[string]string{}
	for _, row := range results.Rows {
		switch {
		case row.NA != "":
			na[row.Peer] = row.NA
		case row.Peer != "a" || row.Values["x"] != float64(row.Round+1):
			t.Errorf("row %+v; want the value of its round", row)
		}
	}
	if len(results.Rows) != 6 || na["broken"] != "no" || na["stuck"] != "not done after 50ms" || na["idle"] == "" {
		t.Errorf("%d rows, n/a: %v", len(results.Rows), na)
	}
	if results.Head.Versions["a"] != "1" || results.Head.Cores == 0 {
		t.Errorf("head %+v", results.Head)
	}
}

// What there is no time for is n/a, not missing.
func TestTimeLimit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.jsonl")
	r := run.Run{Reps: 100, TimeLimit: time.Second, Out: file}
	if err := r.Begin(2, nil, nil); err != nil {
		t.Fatal(err)
	}
	slow := run.Case{Scenario: "slow", Weight: 1, Patience: time.Minute, Peers: []string{"a"},
		Measure: func(context.Context, string) (run.Values, run.Series, error) {
			for !r.Over() {
				time.Sleep(time.Millisecond) // it is the work
			}
			return run.Values{"x": 1}, nil, nil
		}}
	late := slow
	late.Scenario = "late"
	err := r.Case(t.Context(), slow)
	if err == nil {
		err = r.Case(t.Context(), late)
	}
	if err := r.End(err); err != nil {
		t.Fatal(err)
	}
	results, err := run.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(results.Rows) != 2 || results.Rows[0].NA != "" || results.Rows[1].NA == "" {
		t.Errorf("%+v; want one measurement, and one row that tells of no time", results.Rows)
	}
}

// A run that fails leaves the results of the last one.
func TestFailureKeepsResults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.jsonl")
	for _, failure := range []error{nil, errors.New("no disk")} {
		r := run.Run{Reps: 1, TimeLimit: time.Hour, Out: file}
		if err := r.Begin(1, map[string]string{"failure": map[bool]string{true: "yes", false: "no"}[failure != nil]}, nil); err != nil {
			t.Fatal(err)
		}
		if err := r.End(failure); !errors.Is(err, failure) {
			t.Errorf("End: %v; want %v", err, failure)
		}
	}
	results, err := run.Read(file)
	if err != nil || results.Head.Versions["failure"] != "no" {
		t.Errorf("%+v, %v; want those of the first run", results.Head, err)
	}
}

// A process that works is seen to, with its parent; its clock stands when it sleeps.
func TestProcesses(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("this needs /proc")
	}
	cmd := exec.Command("sh", "-c", "sleep 60 & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer func() {
		for _, pid := range run.Tree(cmd.Process.Pid) {
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
	}()
	for deadline := time.Now().Add(10 * time.Second); len(run.Tree(cmd.Process.Pid)) != 2; {
		if time.Now().After(deadline) {
			t.Fatalf("%v; want a shell and its child", run.Tree(cmd.Process.Pid))
		}
	}
	if !slices.Contains(run.Tree(os.Getpid()), cmd.Process.Pid) {
		t.Errorf("%d is not among the descendants", cmd.Process.Pid)
	}
	self := []int{os.Getpid()}
	before := run.CPU(self)
	for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
	}
	if used := run.CPU(self) - before; used <= 0 {
		t.Errorf("20 ms of work took %v", used)
	}
	if run.Memory(self) < 1<<20 || run.Descriptors(self) < 3 {
		t.Errorf("%d bytes, %d descriptors", run.Memory(self), run.Descriptors(self))
	}
}
