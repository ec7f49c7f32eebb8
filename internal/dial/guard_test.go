package dial_test

import (
	"net/netip"
	"testing"

	"github.com/slipswitch/slipswitch/internal/dial"
)

// TestForbiddenAddresses in all their forms.
func TestForbiddenAddresses(t *testing.T) {
	for addr, want := range map[string]bool{
		"::1": true, "::": true, "fe80::1": true, "fe80::1%eth0": true, "ff02::1": true, "::ffff:127.0.0.1": true, "::ffff:169.254.169.254": true, "::127.0.0.1": true,
		"64:ff9b::7f00:1": true, "64:ff9b::a9fe:a9fe": true, "2002:7f00:1::": true, "2002:a9fe:a9fe::1": true, "fd00:ec2::254": true, "100.100.100.200": true,
		"::ffff:100.96.0.96": true, "64:ff9b::6460:60": true, "168.63.129.16": true, "255.255.255.255": true, "0.0.0.0": true,
		"10.255.0.7": false, "64:ff9b::aff:7": false, "2002:aff:7::1": false, "fd00::7": false, "100.100.100.201": false, "2001:db8::1": false,
	} {
		if got := new(dial.Dialer).Check(netip.MustParseAddr(addr)) != nil; got != want {
			t.Errorf("%s: refused: %v; want %v", addr, got, want)
		}
	}
}
