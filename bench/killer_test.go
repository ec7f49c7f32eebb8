package main

import (
	"testing"
	"time"
)

// TestKiller is the short form of the killer.
func TestKiller(t *testing.T) {
	k := killer{during: 15 * time.Second, sockets: 100, race: raceDetector()}
	line, err := k.run(t.Context())
	if err != nil {
		t.Error(err)
	}
	if len(k.ways) < 13 {
		t.Errorf("only %d ways: %v", len(k.ways), k.ways)
	}
	t.Log(line)
}
