package boltstore_test

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// children are what the test binary does when a test runs it again as another
// process: named in the environment, with arguments behind.
var children = map[string]func(args []string){}

func TestMain(m *testing.M) {
	if child := children[os.Getenv("BOLTSTORE_CHILD")]; child != nil {
		child(os.Args[1:])
		return
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // for all without a logger of their own
	goleak.VerifyTestMain(m)
}

// background is for children, which have no test.
var background = context.Background()
