package slipswitch_test

import (
	"encoding/hex"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
)

// hides is what FuzzCookies hides, as some server or other reads it.
func hides(name string) bool {
	name = spaces.ReplaceAllString(strings.Trim(strings.ToValidUTF8(name, " "), "\u0080\u0085\u00a0\u00ff"), "")
	decoded := spaces.ReplaceAllString(decode(name), "")
	variable := unnamed.ReplaceAllString(rest.ReplaceAllString(strings.TrimLeft(decoded, " +"), "$1"), "_")
	return slices.ContainsFunc([]string{name, decoded, variable}, func(s string) bool { return s == "session" || strings.HasPrefix(s, "_auth") })
}

var (
	spaces  = regexp.MustCompile(`^[\x00- ]+|[\x00- ]+$`)
	escapes = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	rest    = regexp.MustCompile(`(?s)(.)[\x00[].*`)
	unnamed = regexp.MustCompile(`[.+ \[]`)
)

func decode(name string) string {
	return escapes.ReplaceAllStringFunc(name, func(escape string) string {
		b, _ := hex.DecodeString(escape[1:])
		return string(b)
	})
}

// FuzzCookies: whatever the fields are, no hidden cookie passes, as a server or
// a browser reads it, and no other one is changed. What a tenant sets has no
// domain, and a path within its own.
func FuzzCookies(f *testing.F) {
	for _, seed := range []string{"session=1", "a=b; session=1; c=d", "a=\"x; session=1\"; _auth_1", " session\t=1;;=session=2", "Session=1, session=2",
		"a=b; Path=/; Domain=x; path=/ws/a/x", "a=b; Path=/ws/a/x;Path=/", "\xa0session=1", "a=b; Path=/ws/ab", "session", "=;=", "a=b; Path =\t/ws/a?x ; Secure",
		"%73ession=1; %zz=2", "+.auth=1; session[=2", "%20s%65ssion%00x=1", "SESSION=1; %2573ession=2; [auth"} {
		f.Add(seed, seed)
	}
	hidden := &slipswitch.Route{Headers: slipswitch.Headers{HideCookies: []string{"session", "_auth*"}}}
	tenant := &slipswitch.Route{Tenant: true, Headers: hidden.Headers}
	stripped := &slipswitch.Route{Tenant: true, StripPath: true, RestorePath: true, Headers: hidden.Headers}
	f.Fuzz(func(t *testing.T, one, two string) {
		if strings.ContainsFunc(one+two, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return // no header's value
		}
		header := http.Header{"Cookie": {one, two}}
		before := cookiesOf(header)
		hidden.Outgoing(header)
		want := slices.DeleteFunc(before, func(c string) bool { name, _, _ := strings.Cut(c, "="); return hides(name) })
		if got := cookiesOf(header); isASCII(decode(one+two)) && !slices.Equal(got, want) {
			t.Errorf("request %q, %q: got %q; want %q", one, two, got, want)
		}
		for _, c := range (&http.Request{Header: header}).Cookies() {
			if hides(c.Name) {
				t.Errorf("request %q, %q: %q passes in %q", one, two, c, header)
			}
		}
		header = http.Header{"Set-Cookie": {one, two}}
		hidden.Incoming(header, "/ws/a")
		for _, set := range header["Set-Cookie"] {
			if set != one && set != two {
				t.Errorf("response %q, %q: got %q", one, two, set)
			}
		}
		for _, set := range []string{one, two} {
			pair, _, _ := strings.Cut(set, ";")
			name, _, found := strings.Cut(pair, "=")
			name = strings.Trim(name, " \t")
			if passes, want := slices.Contains(header["Set-Cookie"], set), found && name != "" && !hides(name); passes && !want || !passes && want && isASCII(decode(name)) {
				t.Errorf("response %q: passes: %v; want %v", set, passes, want)
			}
		}
		for _, r := range []*slipswitch.Route{tenant, stripped} {
			header := http.Header{"Set-Cookie": {one, two}}
			r.Incoming(header, "/ws/a")
			for _, set := range header["Set-Cookie"] {
				name, path, domain := readSetCookie(set)
				if rest, within := strings.CutPrefix(path, "/ws/a"); name == "" || hides(name) || domain || !within || rest != "" && !strings.ContainsRune("/?#", rune(rest[0])) {
					t.Errorf("response %q, %q: got %q", one, two, set)
				}
			}
		}
	})
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(c rune) bool { return c >= 0x7f }) }

// cookiesOf takes a request's cookies apart as servers do, empty ones left out.
func cookiesOf(header http.Header) (list []string) {
	for _, field := range header["Cookie"] {
		for pair := range strings.SplitSeq(field, ";") {
			if pair = strings.Trim(pair, " \t"); pair != "" {
				list = append(list, pair)
			}
		}
	}
	return list
}

// readSetCookie reads what browsers do (RFC 6265 §5.2): the last attribute of a
// name is the one that counts.
func readSetCookie(set string) (name, path string, domain bool) {
	parts := strings.Split(set, ";")
	name, _, _ = strings.Cut(parts[0], "=")
	for _, part := range parts[1:] {
		attribute, value, _ := strings.Cut(part, "=")
		switch strings.ToLower(strings.Trim(attribute, " \t")) {
		case "path":
			path = strings.Trim(value, " \t")
		case "domain":
			domain = true
		}
	}
	return strings.Trim(name, " \t"), path, domain
}
