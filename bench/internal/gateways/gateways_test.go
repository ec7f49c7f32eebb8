package gateways

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

func TestMain(m *testing.M) {
	run.Play(Roles)
	os.Exit(m.Run())
}

// The peers that are always there go through each scenario that nobody waits
// long in, and what they tell makes sense.
func TestScenarios(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("the comparison needs Linux")
	}
	var c comparison
	c.Short, c.Only, c.TimeLimit = true, []string{"slipswitch", "bare", "direct"}, time.Hour
	c.Out, c.Reps = filepath.Join(t.TempDir(), "results.jsonl"), 1
	if err := c.only("requests,handshakes,message,change"); err != nil {
		t.Fatal(err)
	}
	c.scenarios[0] = &scenario{name: "requests", routes: []int{10}, weight: 1, patience: time.Minute, measure: requests.measure}
	c.scenarios[3] = &scenario{name: "change", routes: []int{10}, weight: 1, changes: true, patience: time.Minute, measure: change.measure}
	if err := c.compare(t.Context()); err != nil {
		t.Fatal(err)
	}
	results, err := run.Read(c.Out)
	if err != nil {
		t.Fatal(err)
	}
	if want := 3 + 3 + 3 + 2; len(results.Rows) != want {
		t.Errorf("%d rows; want %d", len(results.Rows), want)
	}
	for _, row := range results.Rows {
		if row.NA != "" {
			t.Errorf("%s, %s: n/a: %s", row.Scenario, row.Peer, row.NA)
		}
		for name, value := range row.Values {
			if !(value > 0) {
				t.Errorf("%s, %s: %s is %v", row.Scenario, row.Peer, name, value)
			}
		}
		if _, told := row.Values["CPU µs"]; told != (row.Peer != "direct" && row.Scenario != "change") {
			t.Errorf("%s, %s: processor time: %v", row.Scenario, row.Peer, told)
		}
	}
}

func TestWhatToCompare(t *testing.T) {
	var c comparison
	if err := c.only("cuts,nothing"); err == nil || !strings.Contains(err.Error(), `"nothing"`) {
		t.Errorf("-scenarios cuts,nothing: %v", err)
	}
	c = comparison{}
	c.Only, c.Reps = []string{"apache"}, 1
	if err := c.compare(t.Context()); err == nil || !strings.Contains(err.Error(), `"apache"`) {
		t.Errorf("-peers apache: %v", err)
	}
}

// What was to be sent while an answer was late counts from when it was to be.
func TestPace(t *testing.T) {
	p := newPace(time.Now().Add(-time.Second), 10, 0, 1)
	if from := p.wait(3); from.Sub(p.start) != 300*time.Millisecond {
		t.Errorf("the fourth of ten a second counts from %v; want 300ms", from.Sub(p.start))
	}
	p = newPace(time.Now(), 100, 0, 1)
	if from := p.wait(2); from.Sub(p.start) < 20*time.Millisecond {
		t.Errorf("the third of a hundred a second counts from %v; want 20ms or more", from.Sub(p.start))
	}
}
