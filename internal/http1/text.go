package http1

import "strings"

// What bytes may be where (RFC 9110 §5.1, §5.5).
const (
	tokenByte = 1 << iota
	valueByte
	targetByte
	hexByte
)

var class = func() (class [256]uint8) {
	for c := range class {
		if c > ' ' && c != 0x7f {
			class[c] |= valueByte | targetByte
		}
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			class[c] |= tokenByte
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		class[c] |= tokenByte
	}
	for _, c := range []byte("0123456789abcdefABCDEF") {
		class[c] |= hexByte
	}
	class[' '] |= valueByte
	class['\t'] |= valueByte
	return class
}()

func all[T string | []byte](s T, want uint8) bool {
	for i := range len(s) {
		if class[s[i]]&want == 0 {
			return false
		}
	}
	return true
}

func isToken[T string | []byte](s T) bool { return len(s) > 0 && all(s, tokenByte) }
func isValue[T string | []byte](s T) bool { return all(s, valueByte) }
func isTarget(s string) bool              { return all(s, targetByte) }

func trimSpace(s string) string { return strings.Trim(s, " \t") }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// equalFold compares with a text in lower case, as ASCII.
func equalFold(s, low string) bool {
	if len(s) != len(low) {
		return false
	}
	for i := range len(s) {
		if lower(s[i]) != low[i] {
			return false
		}
	}
	return true
}

// hasToken reports whether a comma-separated field has a token.
func hasToken(values []string, low string) bool {
	for _, value := range values {
		for token := range strings.SplitSeq(value, ",") {
			if equalFold(trimSpace(token), low) {
				return true
			}
		}
	}
	return false
}
