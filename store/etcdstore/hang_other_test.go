//go:build !unix

package etcdstore_test

import "testing"

func hang(t *testing.T, m *member) { t.Skip("needs a signal that stops a process") }

func goOn(*testing.T, *member) {}
