//go:build !linux

package splice_test

const hasTCPInfo = false
