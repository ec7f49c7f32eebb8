package slipswitch

import (
	"iter"
	"net/http"
	"slices"
	"strconv"
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

// decodedName returns a cookie's name as servers read it that decode it, once:
// Rack before 2.2.3 (CVE-2020-8184), PHP before 7.4.11 (CVE-2020-7070), ASP.NET
// Core before 5. What is no escape stays.
func decodedName(name string) string {
	if strings.IndexByte(name, '%') < 0 {
		return name
	}
	var decoded []byte
	for i := 0; i < len(name); i++ {
		if name[i] == '%' && i+2 < len(name) {
			if c, err := strconv.ParseUint(name[i+1:i+3], 16, 8); err == nil {
				decoded = append(decoded, byte(c))
				i += 2
				continue
			}
		}
		decoded = append(decoded, name[i])
	}
	return cookieName(string(decoded))
}

// variableName returns a decoded name as PHP makes a variable of it
// (CVE-2022-31629): without spaces in front, or what may stand for them, up to a
// bracket or NUL that is not the first, and with an underscore for what no
// variable may have.
func variableName(name string) string {
	name = strings.TrimLeftFunc(name, func(c rune) bool { return c == ' ' || c == '+' || c >= 0x7f })
	for i := 1; i < len(name); i++ {
		if name[i] == '[' || name[i] == 0 {
			name = name[:i]
		}
	}
	return notInVariables.Replace(name)
}

var notInVariables = strings.NewReplacer(".", "_", " ", "_", "+", "_", "[", "_")

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
