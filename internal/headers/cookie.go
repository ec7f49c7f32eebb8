package headers

import (
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Cookies are taken apart by hand here. What is forwarded must be spelt as it came,
// and net/http refuses cookies that some servers set.

// CookieValues yields the values of the cookies with a name, in order. The fields
// are those of a request.
func CookieValues(fields []string, name string) iter.Seq[string] {
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

// CookieName returns a cookie's name as the most lenient server reads it: some
// take a no-break space for a space.
func CookieName(s string) string {
	return strings.TrimFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}

// DecodedCookieName returns a cookie's name as servers read it that decode names
// once: Rack before 2.2.3 (CVE-2020-8184), PHP before 7.4.11 (CVE-2020-7070),
// ASP.NET Core before 5. A percent sign that begins no escape stays.
func DecodedCookieName(name string) string {
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
	return CookieName(string(decoded))
}

// CookieVariable returns the variable that PHP makes of a decoded name
// (CVE-2022-31629). Leading spaces, and what may stand for them, are dropped. The
// name ends at a bracket or NUL that is not its first byte. What no variable may
// contain becomes an underscore.
func CookieVariable(name string) string {
	name = strings.TrimLeftFunc(name, func(c rune) bool { return c == ' ' || c == '+' || c >= 0x7f })
	for i := 1; i < len(name); i++ {
		if name[i] == '[' || name[i] == 0 {
			name = name[:i]
		}
	}
	return notInVariables.Replace(name)
}

var notInVariables = strings.NewReplacer(".", "_", " ", "_", "+", "_", "[", "_")

// DropCookies removes from a request's header the cookies whose name drop reports.
// It is called with names as CookieName returns them. The others keep their
// spelling and order.
func DropCookies(header http.Header, drop func(name string) bool) {
	fields := header["Cookie"]
	var kept []string
	for _, field := range fields {
		pairs := strings.Split(field, ";")
		pairs = slices.DeleteFunc(pairs, func(pair string) bool {
			name, _, _ := strings.Cut(pair, "=")
			return drop(CookieName(name))
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

// CookiePath returns a prefix as the Path of a cookie, in which nothing ends the
// attribute.
func CookiePath(prefix string) string {
	if prefix == "" {
		return "/"
	}
	return strings.ReplaceAll(prefix, ";", "%3B")
}
