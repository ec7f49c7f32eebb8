package canon_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/internal/canon"
)

func TestRawPath(t *testing.T) {
	for target, want := range map[string]string{
		"/a/b": "/a/b", "/%61/%2F;%3b": "/%61/%2F;%3b", "/a%20b?c": "/a%20b", "//a": "//a", "/a|b": "/a|b", "/{1}": "/{1}", "": "",
	} {
		u, err := url.ParseRequestURI("http://host" + target)
		if err != nil {
			t.Fatal(err)
		}
		if got := canon.RawPath(u); got != want {
			t.Errorf("%s: got %s; want %s", target, got, want)
		}
	}
	u := &url.URL{Path: "/b c/d", RawPath: "/a/b%20c%2Fd"} // a handler has stripped /a of Path alone
	if got, want := canon.RawPath(u), "/b%20c/d"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
}

func TestScanPathRefuses(t *testing.T) {
	for _, path := range []string{
		"", "*", "a", "/%", "/%4", "/%zz", "/%00", "/a/%00/b", "/a#b", `/a\b`, "/a b", "/a\x00", "/a\nb", "/\x7f",
		"/long/enough/for/words/and/then/\\", "/long/enough/for/words/and/then/%0",
	} {
		if scan, err := canon.ScanPath(path); err == nil {
			t.Errorf("%q: got %+v; want an error", path, scan)
		}
	}
}

// canonicalPath returns the resolved and the canonical form of a path.
func canonicalPath(path string) (resolved, canonical string, err error) {
	scan, err := canon.ScanPath(path)
	if err != nil {
		return "", "", err
	}
	if scan.Dotted {
		path = canon.ResolveDots(path)
	}
	if !scan.Escaped {
		return path, path, nil
	}
	return path, string(canon.AppendPath(nil, path, len(path))), nil
}

func TestPathForms(t *testing.T) {
	for _, test := range []struct{ path, resolved, canonical string }{
		{"/", "/", "/"},
		{"//a//", "//a//", "//a//"},
		{"/%61/%40me/@", "/%61/%40me/@", "/a/@me/@"},
		{"/a%2fb/%5C", "/a%2fb/%5C", `/a%2Fb/\`},
		{"/a%25/%2541", "/a%25/%2541", "/a%25/%2541"}, // decoded once
		{"/ü/%C3%BC", "/ü/%C3%BC", "/ü/ü"},
		{"/a/./b", "/a/b", "/a/b"},
		{"/a/x/%2e%2E/%62", "/a/%62", "/a/b"},
		{"/../../a", "/a", "/a"},
		{"/a/b/..", "/a/", "/a/"},
		{"/a/b/%2e", "/a/b/", "/a/b/"},
		{"/a//../b", "/a/b", "/a/b"},
		{"/.../..%2fb/.a", "/.../..%2fb/.a", "/.../..%2Fb/.a"}, // no dot segments
		{"/a/%62/x%2Fy/../%41%2541", "/a/%62/%41%2541", "/a/b/A%2541"},
	} {
		if resolved, canonical, err := canonicalPath(test.path); resolved != test.resolved || canonical != test.canonical || err != nil {
			t.Errorf("%q: got %q, %q, %v; want %q, %q", test.path, resolved, canonical, err, test.resolved, test.canonical)
		}
	}
}

func TestAppendPathStops(t *testing.T) {
	for limit, want := range []string{"", "/", "/%2F", "/%2F", "/%2F", "/%2Fa", "/%2Fab"} {
		if got := string(canon.AppendPath(nil, "/%2f%61b", limit)); got != want {
			t.Errorf("limit %d: got %q; want %q", limit, got, want)
		}
	}
}

func TestCheckStrict(t *testing.T) {
	for path, want := range map[string]bool{
		"/a/b": true, "/%61/%25": true, "/a.b": true, "/a%2fb": false, "/a%2Fb": false, "/%5c": false, "/a;b": false, "/%3B": false,
	} {
		if err := canon.CheckStrict(path); (err == nil) != want {
			t.Errorf("%q: got %v; want it accepted: %v", path, err, want)
		}
	}
}

func TestCheckQuery(t *testing.T) {
	for query, want := range map[string]bool{
		"": true, "a=b&%zz;#\\é": true, "a b": false, "a\r\nb": false, "\x00": false, "\x7f": false, "a\tb": false,
	} {
		if err := canon.CheckQuery(query); (err == nil) != want {
			t.Errorf("%q: got %v; want it accepted: %v", query, err, want)
		}
	}
}

func TestCutSegments(t *testing.T) {
	for n, want := range []string{"", "/a", "/a/", "/a//%2F", "/a//%2F/"} {
		prefix, rest := canon.CutSegments("/a//%2F/", n)
		if prefix != want || prefix+rest != "/a//%2F/" {
			t.Errorf("after %d: got %q, %q; want %q", n, prefix, rest, want)
		}
	}
}

func TestEscapePath(t *testing.T) {
	for path, want := range map[string]string{
		"/a/%2F/ü;": "/a/%2F/ü;", "/a b?#\\\n": "/a%20b%3F%23%5C%0A", "/\xffü": "/%FFü", "": "",
	} {
		if got := canon.EscapePath(path); got != want {
			t.Errorf("%q: got %q; want %q", path, got, want)
		}
	}
}

// FuzzPath compares what is decided about any path with net/url.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{
		"/", "/a", "/a/b", "/%61", "/a/../b", "/a/%2e%2e/b", "/..%2f", "/%252e", "/%00", "/#", `/\`, "//a", "/a//", "/a/.",
		"/long/enough/to/be/read/by/words/.", "/eight/../seven", "/%zz", "/a%2Fb/%25/@/%40", "/1234567/.", "/123456/./",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		resolved, canonical, err := canonicalPath(path)
		decoded, invalid := url.PathUnescape(path)
		bad := path == "" || path[0] != '/' || invalid != nil || strings.ContainsRune(decoded, 0) ||
			strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' || r == '\\' })
		if (err != nil) != bad {
			t.Fatalf("%q: got error %v; want one: %v", path, err, bad)
		}
		if err != nil {
			return
		}
		var segments []string
		for segment := range strings.SplitSeq(resolved, "/") {
			s, _ := url.PathUnescape(segment)
			if s == "." || s == ".." {
				t.Errorf("%q was resolved to %q", path, resolved)
			}
			segments = append(segments, strings.NewReplacer("%", "%25", "/", "%2F").Replace(s))
		}
		if want := strings.Join(segments, "/"); canonical != want {
			t.Errorf("%q: got %q; want %q", path, canonical, want)
		}
		if again, _, err := canonicalPath(resolved); err != nil || again != resolved {
			t.Errorf("%q was resolved to %q, and that to %q, %v", path, resolved, again, err)
		}
		// Written as a key, the path is the same, and can be read.
		escaped := canon.EscapePath(canonical)
		if _, again, err := canonicalPath(escaped); err != nil || again != canonical || strings.Contains(escaped, "?") {
			t.Errorf("%q is written %q, and that is read as %q, %v", canonical, escaped, again, err)
		}
	})
}
