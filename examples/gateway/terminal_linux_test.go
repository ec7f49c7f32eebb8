package main_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A terminal is the one place where the token is printed.
func TestTokenOnTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	defer master.Close()
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if controlErr := conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	g := startWithoutToken(t, t.TempDir(), terminal)
	line, err := bufio.NewReader(master).ReadString('\n')
	if want := "admin token: " + g.token; err != nil || strings.TrimSpace(line) != want {
		t.Errorf("the terminal shows %q, %v; want %q", line, err, want)
	}
	if strings.Contains(g.stderr.String(), g.token) {
		t.Errorf("the token is in the log:\n%s", g.stderr)
	}
}
