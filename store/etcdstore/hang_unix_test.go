//go:build unix

package etcdstore_test

import (
	"syscall"
	"testing"
)

func hang(t *testing.T, m *member) { signal(t, m, syscall.SIGSTOP) }

func goOn(t *testing.T, m *member) { signal(t, m, syscall.SIGCONT) }

func signal(t *testing.T, m *member, s syscall.Signal) {
	t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
