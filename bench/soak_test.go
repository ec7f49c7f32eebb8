package main

import (
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

// TestSoak is the short form of the soak. Under the race detector so is the gateway.
func TestSoak(t *testing.T) {
	s := soak{during: 20 * time.Second, tunnels: 200, changes: 1000, race: raceDetector()}
	line, err := s.run(t.Context())
	if err != nil {
		t.Error(err)
	}
	t.Log(line, "race:", s.race)
}

// raceDetector reports whether it looks on.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// What a soak looks for, it finds.
func TestStreamDiffers(t *testing.T) {
	sent := newStream(7, 0)
	var all []byte
	for len(all) < 1<<20 {
		header, payload := sent.frame()
		all = append(append(all, header...), payload...)
	}
	const at = 70_001
	for _, test := range []struct {
		what string
		p    []byte
		want bool
	}{
		{"the same", all, true},
		{"a prefix", all[:at], true},
		{"a byte lost", slices.Concat(all[:at], all[at+1:]), false},
		{"a byte doubled", slices.Concat(all[:at], all[at-1:]), false},
		{"a part elsewhere", slices.Concat(all[:at], all[at+10:at+20], all[at:at+10], all[at+20:]), false},
		{"that of the other end", func() []byte { h, p := newStream(7, 1).frame(); return append(h, p...) }(), false},
		{"that of another tunnel", func() []byte { h, p := newStream(8, 0).frame(); return append(h, p...) }(), false},
	} {
		receives, got := newStream(7, 0), true
		for part := range slices.Chunk(test.p, 999) {
			got = got && receives.goesOn(part)
		}
		if got != test.want {
			t.Errorf("%s: got %v; want %v", test.what, got, test.want)
		}
	}
}
