package canon_test

import (
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/internal/canon"
)

func TestScanHost(t *testing.T) {
	for _, test := range []struct {
		hostport, want string
		plain          bool
	}{
		{"", "", true},
		{"ide.example.com", "ide.example.com", true},
		{"a_b-c.1", "a_b-c.1", true},
		{"127.0.0.1", "127.0.0.1", true},
		{"127.0.0.1:80", "127.0.0.1", false},
		{"IDE.Example.COM:8443", "ide.example.com", false},
		{"ide.example.com.", "ide.example.com", false},
		{"ide.example.com.:80", "ide.example.com", false},
		{"ide.example.com:", "ide.example.com", false},
		{"[::1]", "::1", false},
		{"[0:0::1]:80", "::1", false},
		{"[2001:DB8::1]", "2001:db8::1", false},
		{strings.Repeat("a", 63), strings.Repeat("a", 63), true},
		{strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 126) + "a", true},
		{strings.Repeat("a.", 126) + "a.", strings.Repeat("a.", 126) + "a", false},
	} {
		host, plain, err := canon.ScanHost(test.hostport)
		if got := string(canon.AppendHost(nil, host)); got != test.want || plain != test.plain || err != nil || plain != canon.IsPlainHost(test.hostport) {
			t.Errorf("%q: got %q, %v, %v; want %q, %v", test.hostport, got, plain, err, test.want, test.plain)
		}
	}
}

func TestScanHostRefuses(t *testing.T) {
	for _, hostport := range []string{
		"a b", "a\x00b", "\u212aelvin.example", "ide.example\uff0ecom", "h:x", "h:1:2", ":80", "..", ".h", "a..b", "*.h", "h/x", "h:123456",
		"[::1", "[::1%eth0]", "[::1]x", "[1.2.3.4]", "::1", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a",
	} {
		if host, plain, err := canon.ScanHost(hostport); err == nil || canon.IsPlainHost(hostport) {
			t.Errorf("%q: got %q, %v; want an error", hostport, host, plain)
		}
	}
}

func TestHostPattern(t *testing.T) {
	for pattern, want := range map[string]string{
		"": "", "ide.example.com": "ide.example.com", "IDE.example.com.": "ide.example.com", "*.Example.com": "*.example.com",
		"**.example.com": "**.example.com", "::1": "::1", "[0:0::1]": "::1", "127.0.0.1": "127.0.0.1",
	} {
		if got, err := canon.HostPattern(pattern); got != want || err != nil {
			t.Errorf("%q: got %q, %v; want %q", pattern, got, err, want)
		}
	}
	for _, pattern := range []string{"*", "**", "*.", "***.a", "*a", "a.*", "a.*.b", "h:80", "[::1]:80", "::1%eth0", "a b", "*.a..b"} {
		if got, err := canon.HostPattern(pattern); err == nil {
			t.Errorf("%q: got %q; want an error", pattern, got)
		}
	}
	for _, pattern := range []string{"a.*.b", "*.*.b"} {
		if _, err := canon.HostPattern(pattern); err == nil || !strings.Contains(err.Error(), "*.host") {
			t.Errorf("%q: got %v; want the error to say where stars may be", pattern, err)
		}
	}
}
