package canon

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// RawPath returns a URL's path as the client spelt it, unless a handler around
// this one has changed URL.Path. URL.EscapedPath would respell a path that is not
// spelt the usual way, and so lose the difference between / and %2F.
func RawPath(u *url.URL) string {
	if u.RawPath != "" {
		if path, err := url.PathUnescape(u.RawPath); err == nil && path == u.Path {
			return u.RawPath
		}
	}
	return u.EscapedPath()
}

// Errors of paths. As texts they complete "path must …".
var (
	errPathSlash  = errors.New("must begin with /")
	errPathByte   = errors.New(`must not contain a space, # \ or control bytes unless percent-encoded`)
	errPathEscape = errors.New("must have two hexadecimal digits after each %")
	errPathNUL    = errors.New("must not contain %00")
	errPathStrict = errors.New("must not contain %2F, %5C or ; here")
)

// Classes of bytes in a raw path.
const (
	plainByte = iota
	slashByte
	percentByte
	badByte
)

var pathClass = func() (class [256]uint8) {
	for c := range 0x20 {
		class[c] = badByte
	}
	class[' '], class['#'], class['\\'], class[0x7f] = badByte, badByte, badByte, badByte
	class['/'], class['%'] = slashByte, percentByte
	return
}()

// A PathScan says which work a valid path needs before it can be compared.
type PathScan struct {
	Escaped bool // the path has percent-encoded bytes
	Dotted  bool // the path has segments . or .., in any spelling
}

// ScanPath reads a raw path once. Its error completes "path must …".
func ScanPath(path string) (scan PathScan, err error) {
	if path == "" || path[0] != '/' {
		return scan, errPathSlash
	}
	for i := plainBytes(path); i < len(path); i++ {
		switch pathClass[path[i]] {
		case slashByte:
			if i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '%') && dots(SegmentAt(path, i+1)) > 0 {
				scan.Dotted = true
			}
		case percentByte:
			c, ok := unescape(path, i)
			if !ok {
				return scan, errPathEscape
			}
			if c == 0 {
				return scan, errPathNUL
			}
			scan.Escaped = true
			i += 2
		case badByte:
			return scan, errPathByte
		}
	}
	return scan, nil
}

// plainBytes returns how many bytes at the start of path need no further look:
// letters, digits, slashes and most others, but no dot after a slash. It looks
// at eight at a time, the last of them twice, since it is most of the work of a
// lookup in a small table.
func plainBytes(path string) int {
	const (
		ones = 0x0101010101010101
		tops = 0x8080808080808080
	)
	has := func(word uint64, c byte) uint64 { // top bits of the bytes that are c, and perhaps of some others
		word ^= ones * uint64(c)
		return (word - ones) &^ word
	}
	for i := 0; i+8 <= len(path); {
		s := path[i : i+8]
		word := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		special := ((word-ones*0x21)|(word+ones))&^word | // controls, the space, 0x7f
			has(word|ones*('#'^'%'), '#'|'%') | // and ! and '
			has(word, '\\')
		dots := has(word, '.')
		if (special|dots)&tops != 0 {
			afterSlash := has(word, '/') << 8
			if i > 0 && path[i-1] == '/' {
				afterSlash |= 0x80
			}
			if (special|dots&afterSlash)&tops != 0 {
				return max(i-1, 0) // the next byte may be a dot after this one
			}
		}
		switch left := len(path) - i - 8; {
		case left == 0:
			return len(path)
		case left < 8:
			i += left
		default:
			i += 8
		}
	}
	return 0
}

// CheckStrict refuses what a valid path may hold but some servers read as
// something else: an escaped slash or backslash, and a semicolon. Its error
// completes "path must …".
func CheckStrict(path string) error {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			c, _ = unescape(path, i)
			if c == '/' || c == '\\' {
				return errPathStrict
			}
			i += 2
		}
		if c == ';' {
			return errPathStrict
		}
	}
	return nil
}

// AppendPath appends the canonical form of a valid path without dot segments:
// each byte is decoded once, but / and % inside a segment stay escaped. It stops
// once dst has grown to limit bytes, or up to two more.
func AppendPath(dst []byte, path string, limit int) []byte {
	for i := 0; i < len(path) && len(dst) < limit; i++ {
		c := path[i]
		if c == '%' {
			c, _ = unescape(path, i)
			i += 2
			switch c {
			case '/':
				dst = append(dst, "%2F"...)
				continue
			case '%':
				dst = append(dst, "%25"...)
				continue
			}
		}
		dst = append(dst, c)
	}
	return dst
}

// ResolveDots removes the dot segments of a valid path (RFC 3986 §5.2.4). All
// other segments keep their spelling.
func ResolveDots(path string) string {
	var kept []string
	segment := ""
	for rest, more := path[1:], true; more; {
		segment, rest, more = strings.Cut(rest, "/")
		switch dots(segment) {
		case 0:
			kept = append(kept, segment)
		case 2:
			kept = kept[:max(len(kept)-1, 0)]
			fallthrough
		case 1:
			if !more {
				kept = append(kept, "")
			}
		}
	}
	return "/" + strings.Join(kept, "/")
}

// CheckQuery refuses a raw query with a byte that would end a request line, or
// a part of one.
func CheckQuery(query string) error {
	for i := range len(query) {
		if query[i] <= ' ' || query[i] == 0x7f {
			return errPathByte
		}
	}
	return nil
}

// dots returns 1 for the segment ".", 2 for "..", in any spelling, else 0.
func dots(segment string) int {
	n := 0
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		if c == '%' {
			c, _ = unescape(segment, i)
			i += 2
		}
		if n++; c != '.' || n > 2 {
			return 0
		}
	}
	return n
}

// SegmentAt returns the segment of a path that begins at byte i, after its slash.
func SegmentAt(path string, i int) string {
	if n := strings.IndexByte(path[i:], '/'); n >= 0 {
		return path[i : i+n]
	}
	return path[i:]
}

// CutSegments splits a raw path after its first n segments. The path must have
// as many.
func CutSegments(path string, n int) (prefix, rest string) {
	i := 0
	for ; n > 0; n-- {
		i += 1 + len(SegmentAt(path, i+1))
	}
	return path[:i], path[i:]
}

// EscapePath percent-encodes what must not stand in the path of a key: what no raw
// path may hold, the ? that would begin a query, and bytes that are not UTF-8,
// which JSON could not hold.
func EscapePath(path string) string {
	bad := func(c rune) bool { return c == utf8.RuneError || c == '?' || c < 0x80 && pathClass[c] == badByte }
	if strings.IndexFunc(path, bad) < 0 {
		return path
	}
	var b strings.Builder
	for len(path) > 0 {
		c, n := utf8.DecodeRuneInString(path)
		if bad(c) {
			fmt.Fprintf(&b, "%%%02X", path[0])
			n = 1
		} else {
			b.WriteString(path[:n])
		}
		path = path[n:]
	}
	return b.String()
}

// unescape returns the byte whose escape begins at s[i]. It reports whether two
// hexadecimal digits follow.
func unescape(s string, i int) (c byte, ok bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, lo := unhex[s[i+1]], unhex[s[i+2]]
	return hi<<4 | lo&0xf, hi|lo < 16
}

var unhex = func() (value [256]uint8) {
	for c := range value {
		value[c] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		value[c] = uint8(i)
		value[strings.ToUpper(string(c))[0]] = uint8(i)
	}
	return
}()
