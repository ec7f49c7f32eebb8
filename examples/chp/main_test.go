package main_test

import (
	"testing"

	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// The tests run the program as it is, built, in a process of its own, and next
// to it the real configurable-http-proxy: where both must agree, one check is
// made of both.
var built string

func TestMain(m *testing.M) { programtest.Main(m, &built, nil) }
