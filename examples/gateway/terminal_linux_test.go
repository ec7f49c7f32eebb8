package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/examples/internal/programtest"
	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a terminal, which needs no more of /dev than
// one of the names of its multiplexer.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	var failed error
	for _, name := range []string{"/dev/ptmx", "/dev/pts/ptmx"} {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
			continue
		}
		master = os.NewFile(uintptr(fd), name)
		t.Cleanup(func() { master.Close() })
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			t.Fatal(err)
		}
		peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			t.Fatal(errno)
		}
		terminal = os.NewFile(peer, "terminal")
		t.Cleanup(func() { terminal.Close() })
		return master, terminal
	}
	programtest.Missing(t, fmt.Sprintf("a terminal: %v", failed))
	return nil, nil
}

// A terminal is the one place where the token is printed.
func TestTokenOnTerminal(t *testing.T) {
	master, terminal := openTerminal(t)
	g := startWithoutToken(t, t.TempDir(), terminal)
	line, err := bufio.NewReader(master).ReadString('\n')
	if want := "admin token: " + g.token; err != nil || strings.TrimSpace(line) != want {
		t.Errorf("the terminal shows %q, %v; want %q", line, err, want)
	}
	if strings.Contains(g.stderr.String(), g.token) {
		t.Errorf("the token is in the log:\n%s", g.stderr)
	}
}
