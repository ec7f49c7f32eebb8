// Package programtest has common code of the tests of whole programs.
package programtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main builds the program of the directory, with the race detector if the tests
// have it. It runs the tests, then done if it is not nil, and fails if goroutines
// are left. Meanwhile the program is at path. Main does not return.
func Main(m *testing.M, path *string, done func()) { os.Exit(run(m, path, done)) }

func run(m *testing.M, path *string, done func()) int {
	dir, err := os.MkdirTemp("", "programtest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*path = filepath.Join(dir, "program")
	if runtime.GOOS == "windows" {
		*path += ".exe"
	}
	args := []string{"build", "-o", *path}
	if raceEnabled {
		args = append(args, "-race") // a race in it is an exit status other than 0
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if done != nil {
		done()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "leaked goroutines:", err)
			return 1
		}
	}
	return code
}

// Patience is how long tests wait for an event.
const Patience = 30 * time.Second

// Eventually waits until a condition holds. If it does not, the test fails and
// says so.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	late := time.After(Patience)
	for tick := time.NewTicker(5 * time.Millisecond); !holds(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}

// Receive waits for a value of a channel. If none comes, the test fails and says
// so.
func Receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(Patience):
		t.Fatalf("not within %v: %s", Patience, what)
		panic("unreachable")
	}
}

// Missing skips a test that lacks something, or fails it in CI.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("this test needs %s", what)
	}
	t.Skipf("this test needs %s", what)
}

// A Buffer can be read while it is written.
type Buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
