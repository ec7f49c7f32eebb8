//go:build unix

package gateways

import (
	"os/exec"
	"syscall"
)

// own makes a process the first of a group, so that an interrupt at the
// terminal is not for it, and killAll finds what it has started.
func own(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killAll(pid int) { syscall.Kill(-pid, syscall.SIGKILL) }

func signalReload(pid int) error  { return syscall.Kill(pid, syscall.SIGHUP) }
func signalReplace(pid int) error { return syscall.Kill(pid, syscall.SIGUSR2) }
