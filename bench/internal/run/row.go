// Package run is what the comparisons have in common: rounds in which each peer
// is measured in turn, and the rows that come of it.
package run

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A Head is the first line of a file of results: where the rows come from.
type Head struct {
	Command  string            `json:"command"`
	Began    string            `json:"began"` // RFC 3339
	Short    bool              `json:"short,omitempty"`
	Machine  string            `json:"machine"`
	Kernel   string            `json:"kernel"`
	Cores    int               `json:"cores"`
	Memory   int               `json:"memory"` // bytes
	Go       string            `json:"go"`
	Commit   string            `json:"commit,omitempty"` // with "+" if something was changed
	Versions map[string]string `json:"versions"`         // of peers
	Missing  map[string]string `json:"missing,omitempty"`
}

// A Row is one measurement of one peer, a line of its own.
type Row struct {
	Scenario string `json:"scenario"`
	Case     string `json:"case,omitempty"` // "10000 routes"
	Peer     string `json:"peer"`
	Round    int    `json:"round"` // those of a round were measured one right after the other
	Values   Values `json:"values,omitempty"`
	Series   Series `json:"series,omitempty"`

	// Noise is the share of all cores that others took meanwhile: processes that
	// have nothing to do with the benchmark, or other virtual machines.
	Noise float64 `json:"noise"`

	NA string `json:"na,omitempty"` // why there are no values
}

// Noisy is the Noise from which on a row is marked.
const Noisy = 0.05

// Values are what was measured, by the names of metrics.
type Values map[string]float64

// A Series is a curve: x, y.
type Series [][2]float64

// Results are those of a file.
type Results struct {
	Head Head
	Rows []Row
}

// Read returns the results in a file; none if there is no such file.
func Read(file string) (r Results, err error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer f.Close()
	lines := json.NewDecoder(bufio.NewReader(f))
	if err := lines.Decode(&r.Head); err != nil {
		return r, fmt.Errorf("%s: the first line: %w", file, err)
	}
	for {
		var row Row
		switch err := lines.Decode(&row); {
		case err == io.EOF:
			return r, nil
		case err != nil:
			return r, fmt.Errorf("%s: row %d: %w", file, len(r.Rows)+1, err)
		}
		r.Rows = append(r.Rows, row)
	}
}

// A writer writes results to a file that takes its place when all is done: an
// interrupted run leaves the results of the last one.
type writer struct {
	file *os.File
	path string
}

func newWriter(path string) (*writer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(path + ".part")
	return &writer{file, path}, err
}

func (w *writer) write(line any) error {
	encoded, err := json.Marshal(line)
	if err != nil {
		return err
	}
	_, err = w.file.Write(append(encoded, '\n'))
	return err
}

func (w *writer) close(done bool) error {
	if err := w.file.Close(); err != nil || !done {
		return err
	}
	return os.Rename(w.path+".part", w.path)
}
