package run

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// A Role is what this program does in place of its commands when it has started
// itself, as a part of a comparison: a process of its own.
type Role func(args []string) error

const roleVariable = "SLIPSWITCH_BENCH_ROLE"

// Play plays the role that this process was started for, and does not return
// then. Call it first of all.
func Play(roles map[string]Role) {
	words := strings.Fields(os.Getenv(roleVariable))
	if len(words) == 0 {
		return
	}
	err := fmt.Errorf("there is no role %q", words[0])
	if role := roles[words[0]]; role != nil {
		err = role(words[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Self returns this program in a role.
func Self(words ...string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), roleVariable+"="+strings.Join(words, " "))
	return cmd, nil
}

// EndWithParent ends this process when the one that has started it does,
// however that comes: for roles whose standard input is a pipe that nobody writes to.
func EndWithParent() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
