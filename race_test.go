//go:build race

package slipswitch_test

const raceEnabled = true
