//go:build unix

package slipswitch_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// awaitSent waits until the other end's kernel has all that was sent.
func awaitSent(t testing.TB, p *peer) {
	t.Helper()
	raw, err := p.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	until(t, "all is sent", func() bool {
		unsent := 0
		raw.Control(func(fd uintptr) { unsent, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
		return err == nil && unsent == 0
	})
}
