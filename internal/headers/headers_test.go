package headers_test

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/slipswitch/slipswitch/internal/headers"
)

func TestTokens(t *testing.T) {
	for _, test := range []struct{ values, want []string }{
		{nil, nil},
		{[]string{""}, nil},
		{[]string{"a"}, []string{"a"}},
		{[]string{" a ,,\tb\t, ", "c, d e"}, []string{"a", "b", "c", "d e"}},
	} {
		if got := slices.Collect(headers.Tokens(test.values)); !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q; want %q", test.values, got, test.want)
		}
	}
	for range headers.Tokens([]string{"a,b", "c"}) {
		break // and no more is yielded
	}
}

func TestHasToken(t *testing.T) {
	for _, test := range []struct {
		value string
		want  bool
	}{
		{"upgrade", true}, {"keep-alive, UPGRADE", true}, {"", false}, {"upgrades", false}, {"upgrade x", false}, {"up\u0261rade", false},
	} {
		if got := headers.HasToken([]string{"x", test.value}, "upgrade"); got != test.want {
			t.Errorf("%q: got %v; want %v", test.value, got, test.want)
		}
	}
	if headers.HasToken([]string{"web\u017focket"}, "websocket") { // strings.EqualFold takes it for an s
		t.Error("the long s is taken for an s")
	}
}

func TestIsToken(t *testing.T) {
	for s, want := range map[string]bool{"GET": true, "a!#$%&'*+-.^_`|~9": true, "": false, "a b": false, "a,": false, "é": false, "a/b": false, "\x00": false} {
		if got := headers.IsToken(s); got != want {
			t.Errorf("%q: got %v; want %v", s, got, want)
		}
	}
}

func TestIsValue(t *testing.T) {
	for s, want := range map[string]bool{"": true, "a b\té": true, " a": false, "a\t": false, "a\nb": false, "\x7f": false, "\x00": false} {
		if got := headers.IsValue(s); got != want {
			t.Errorf("%q: got %v; want %v", s, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]struct{ hop, plain, forwarding bool }{
		"Accept":            {plain: true},
		"Te":                {plain: true, hop: true},
		"Proxy":             {plain: true, hop: true},
		"Host":              {plain: true, hop: true},
		"X-Forwarded-For":   {plain: true, forwarding: true},
		"X-Forwarded-Any":   {plain: true, forwarding: true},
		"Forwarded":         {plain: true, forwarding: true},
		"Client-Cert":       {plain: true, forwarding: true},
		"X-Auth-User":       {plain: true},
		"X_auth_user":       {},
		"X.auth.user":       {},
		"X-Forwarded!for":   {},
		"Forwarded-Prefix1": {plain: true},
	} {
		got := want
		got.hop, got.plain, got.forwarding = headers.IsHopByHop(name), headers.IsPlainName(name), headers.IsForwarding(name)
		if got != want {
			t.Errorf("%s: got %+v; want %+v", name, got, want)
		}
	}
	if headers.IsPlainName("") {
		t.Error("nothing is taken for a name")
	}
}

func TestRemoveHopByHop(t *testing.T) {
	header := http.Header{"Connection": {"close, x-one", "X-Two"}, "X-One": {"1"}, "X-Two": {"2"}, "X-Three": {"3"}, "Keep-Alive": {"4"}, "Upgrade": {"h2c"}}
	headers.RemoveHopByHop(header)
	if got := slices.Collect(maps.Keys(header)); !slices.Equal(got, []string{"X-Three"}) {
		t.Errorf("got %v; want X-Three only", got)
	}
}

func TestCookieValues(t *testing.T) {
	fields := []string{"a=1; ab=2;a = \"3\" ;A=4", "a", "b=a=5; a=b=c"}
	if got, want := slices.Collect(headers.CookieValues(fields, "a")), []string{"1", "3", "", "b=c"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

// TestCookieNames: what a name is to a lenient server, to one that decodes it, and
// to PHP.
func TestCookieNames(t *testing.T) {
	for name, want := range map[string][3]string{
		"session":          {"session", "session", "session"},
		"\t session\u00a0": {"session", "session", "session"},
		"%73ession":        {"%73ession", "session", "session"},
		"%2573ession":      {"%2573ession", "%73ession", "%73ession"}, // decoded once
		"%zz%7":            {"%zz%7", "%zz%7", "%zz%7"},
		"%20session%00x":   {"%20session%00x", "session\x00x", "session"},
		"+.auth":           {"+.auth", "+.auth", "_auth"},
		"session[a]":       {"session[a]", "session[a]", "session"},
		"[auth":            {"[auth", "[auth", "_auth"},
		"":                 {"", "", ""},
	} {
		lenient := headers.CookieName(name)
		decoded := headers.DecodedCookieName(lenient)
		if got := [3]string{lenient, decoded, headers.CookieVariable(decoded)}; got != want {
			t.Errorf("%q: got %q; want %q", name, got, want)
		}
	}
}

func TestDropCookies(t *testing.T) {
	for _, test := range []struct{ fields, want []string }{
		{[]string{"a=1"}, []string{"a=1"}},
		{[]string{"session=1"}, nil},
		{[]string{"a=1;  session = 2;b=\"3;c"}, []string{"a=1;b=\"3;c"}},
		{[]string{"session", "a=session"}, []string{"a=session"}},
		{nil, nil},
	} {
		header := http.Header{"Cookie": test.fields}
		headers.DropCookies(header, func(name string) bool { return name == "session" })
		if got, there := header["Cookie"]; !slices.Equal(got, test.want) || there != (test.want != nil) {
			t.Errorf("%q: got %q; want %q", test.fields, got, test.want)
		}
	}
}

func TestCookiePath(t *testing.T) {
	for prefix, want := range map[string]string{"": "/", "/a": "/a", "/a;b": "/a%3Bb"} {
		if got := headers.CookiePath(prefix); got != want {
			t.Errorf("%q: got %q; want %q", prefix, got, want)
		}
	}
}
