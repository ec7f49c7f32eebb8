//go:build !unix

package gateways

import (
	"errors"
	"os"
	"os/exec"
)

func own(*exec.Cmd) {}

func killAll(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		p.Kill()
	}
}

func signalReload(int) error  { return errors.ErrUnsupported }
func signalReplace(int) error { return errors.ErrUnsupported }
