package headers

import (
	"iter"
	"strings"
)

// Tokens yields the elements of a comma-separated field.
func Tokens(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, value := range values {
			for token := range strings.SplitSeq(value, ",") {
				if token = strings.Trim(token, " \t"); token != "" && !yield(token) {
					return
				}
			}
		}
	}
}

// HasToken reports whether a comma-separated field has a token, in any case.
// The comparison is ASCII's: "web\u017focket" is no websocket.
func HasToken(values []string, token string) bool {
	for t := range Tokens(values) {
		if EqualFold(t, token) {
			return true
		}
	}
	return false
}

// EqualFold reports whether two strings are the same but for the case of ASCII
// letters.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// IsToken reports whether s is a token (RFC 9110 §5.6.2).
func IsToken(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~") == ""
}

// IsValue reports whether s can be a field's value as it stands: no control bytes,
// and no space around it (RFC 9110 §5.5).
func IsValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return strings.Trim(value, " \t") == value
}
