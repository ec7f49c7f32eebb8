package slipswitch

import (
	"iter"
	"net/http"
	"slices"
	"strings"
)

// Cookies are taken apart by hand here, since what goes on must be spelt as it
// came: some servers' cookies are not what net/http takes for valid.

// cookies yields the values of the cookies with a name.
func cookies(fields []string, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, field := range fields {
			for pair := range strings.SplitSeq(field, ";") {
				n, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
				if strings.TrimRight(n, " \t") == name && !yield(strings.Trim(value, " \t\"")) {
					return
				}
			}
		}
	}
}

// cookieName returns a cookie's name as the most lenient server reads it: some
// take a no-break space for a space.
func cookieName(s string) string {
	return strings.TrimFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}

// dropCookies removes cookies from a request's header.
func dropCookies(header http.Header, drop func(name string) bool) {
	fields := header["Cookie"]
	var kept []string
	for _, field := range fields {
		pairs := strings.Split(field, ";")
		pairs = slices.DeleteFunc(pairs, func(pair string) bool {
			name, _, _ := strings.Cut(pair, "=")
			return drop(cookieName(name))
		})
		if rest := strings.Trim(strings.Join(pairs, ";"), " \t"); rest != "" {
			kept = append(kept, rest)
		}
	}
	if kept == nil {
		delete(header, "Cookie")
		return
	}
	header["Cookie"] = kept
}

// cookiePath returns a path as a cookie's: nothing in it ends the attribute.
func cookiePath(prefix string) string {
	if prefix == "" {
		return "/"
	}
	return strings.ReplaceAll(prefix, ";", "%3B")
}
