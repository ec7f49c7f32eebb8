package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/bench/internal/run"
)

var rows = []run.Row{
	{Scenario: "handshakes", Peer: "slipswitch", Round: 0, Values: run.Values{"per second": 300}},
	{Scenario: "handshakes", Peer: "bare", Round: 0, Values: run.Values{"per second": 200}},
	{Scenario: "handshakes", Peer: "slipswitch", Round: 1, Values: run.Values{"per second": 150}, Noise: 0.5},
	{Scenario: "handshakes", Peer: "bare", Round: 1, Values: run.Values{"per second": 50}, Noise: 0.5},
	{Scenario: "handshakes", Peer: "slipswitch", Round: 2, Values: run.Values{"per second": 1200}, Noise: 0.5},
	{Scenario: "handshakes", Peer: "bare", Round: 2, Values: run.Values{"per second": 600}},
	{Scenario: "handshakes", Peer: "chp", NA: "it does not start"},
}

func TestFigures(t *testing.T) {
	for _, test := range []struct {
		f    figure
		want string
	}{
		{of(rows, "handshakes", "", "slipswitch", "per second"), "300 ±175% ~"},
		{of(rows, "handshakes", "", "bare", "per second"), "200 ±138%"},
		{ratio(rows, "handshakes", "", "slipswitch", "bare", "per second"), "2 ±38% ~"},
		{of(rows, "handshakes", "", "chp", "per second"), "n/a"},
		{of(rows, "handshakes", "", "direct", "per second"), "–"},
	} {
		if got := test.f.String(); got != test.want {
			t.Errorf("got %q; want %q", got, test.want)
		}
	}
	for x, want := range map[float64]string{0: "0", 0.012345: "0.012", 0.456: "0.46", 12.34: "12.3", 1234567.8: "1,234,568", 1002: "1,002"} {
		if got := number(x); got != want {
			t.Errorf("number(%v): %q; want %q", x, got, want)
		}
	}
}

func TestTables(t *testing.T) {
	got := tables(run.Results{Rows: rows}, run.Results{})
	for _, want := range []string{
		"| slipswitch | 300 ±175% ~ | 2 ±38% ~ | – |",
		"| chp | n/a | n/a | n/a |",
		"n/a: chp: it does not start",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// Tables take the place of the last ones, and leave all else.
func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "README.md")
	os.WriteFile(file, []byte("before\n"+beginMark+endMark+"after\n"), 0o600)
	for _, tables := range []string{"first\n", "second\n"} {
		if err := replace(file, tables); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := os.ReadFile(file)
	if want := "before\n" + beginMark + "\nsecond\n\n" + endMark + "after\n"; string(got) != want {
		t.Errorf("got %q; want %q", got, want)
	}
	os.WriteFile(file, []byte("nothing to replace"), 0o600)
	if err := replace(file, "x"); err == nil {
		t.Error("a file without marks was taken")
	}
}

// Plots are well-formed, and what they show stays inside of the axes.
func TestPlots(t *testing.T) {
	for _, p := range []plot{
		{title: "a < b & c", x: "x", y: "y", lines: []line{{"slipswitch", [][2]float64{{0, 0}, {10, 5}}}, {"bare", [][2]float64{{0, 0}, {10, 5}}}}},
		{title: "log", logX: true, logY: true, lines: []line{{"slipswitch", [][2]float64{{10, 0.5}, {1e6, 3000}}}}},
		{title: "bars", bars: [2]string{"one", "two"}, logY: true, lines: []line{{"nginx", [][2]float64{{0, 3}, {1, 30}}}}},
		{title: "flat", lines: []line{{"nginx", [][2]float64{{0, 0}, {1, 0}}}}},
	} {
		if !p.drawable() {
			t.Errorf("%s: not drawable", p.title)
		}
		svg := string(p.svg())
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", p.title, err, svg)
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: a number is none:\n%s", p.title, svg)
		}
		xs, ys := p.axes()
		for _, l := range p.lines {
			for _, point := range l.points {
				if x, y := xs.at(point[0]), ys.at(point[1]); p.bars[0] == "" && (x < left || x > width-right) || y < top || y > height-bottom {
					t.Errorf("%s: %v is drawn at %.0f, %.0f", p.title, point, x, y)
				}
			}
		}
	}
	if (&plot{lines: []line{{"nginx", nil}}}).drawable() {
		t.Error("nothing is drawable")
	}
}
