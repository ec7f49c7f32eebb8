package slipswitch

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// This file is the only one that reads a path or a host. It brings both, from
// routes and from requests alike, into one canonical form, so that a request
// cannot be matched by one spelling and forwarded by another.
//
// The tree key of a route is
//
//	host NUL path "/"        for a prefix route
//	host NUL path "/" NUL    for an exact route
//
// with the path's one trailing slash dropped for a prefix. Neither a host nor
// a canonical path contains NUL, so a byte prefix of a key that ends in "/" is
// a segment prefix of its path.

// Limits on what a [Key] may hold, in bytes.
const (
	MaxPath = 2 << 10
	MaxHost = 253
)

// A Key is the identity of a route.
type Key struct {
	// Host is a host name, an IP address without brackets, "*.example.com" (one
	// label in front), "**.example.com" (one or more), or "" for any host.
	Host string `json:"host,omitempty"`

	// Path begins with a slash. Percent-encoded and plain spellings of one path
	// are the same path. One trailing slash means nothing on a prefix.
	Path string `json:"path"`

	// Exact keys match their path only; others match whole segments in front.
	Exact bool `json:"exact,omitempty"`
}

// String returns host and path as one would write them in a URL, and "=" in
// front of an exact key.
func (k Key) String() string {
	host := k.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if k.Exact {
		return "=" + host + k.Path
	}
	return host + k.Path
}

// UnmarshalJSON is strict, as that of Route.
func (k *Key) UnmarshalJSON(data []byte) error {
	type plainKey Key
	var read plainKey
	if err := unmarshalStrict(data, &read, "key"); err != nil {
		return err
	}
	*k = Key(read)
	return nil
}

// ParseKey reads what String has written. Its error is a [*FieldError], wrapped.
func ParseKey(text string) (Key, error) {
	var k Key
	text, k.Exact = strings.CutPrefix(text, "=")
	slash := max(strings.IndexByte(text, '/'), 0)
	k.Host, k.Path = text[:slash], text[slash:]
	if _, _, err := k.canonical(); err != nil {
		return k, fmt.Errorf("slipswitch: key: %w", err)
	}
	k.Host = strings.Trim(k.Host, "[]")
	return k, nil
}

// Canonical returns the one spelling of k by which stores tell keys apart: two
// keys are the same route's if, and only if, it is equal. It is UTF-8
// without spaces and control bytes. Its error is a [*FieldError], wrapped.
func (k Key) Canonical() (Key, error) {
	key, kept, err := k.canonical()
	if err != nil {
		return k, fmt.Errorf("slipswitch: key: %w", err)
	}
	kept.Path = escapeBad(splitKey(key).Path)
	return kept, nil
}

// splitKey returns the Key of a tree key, with its path decoded.
func splitKey(key string) Key {
	host, path, _ := strings.Cut(key, "\x00")
	exact := path[len(path)-1] == 0
	if exact {
		path = path[:len(path)-len("/\x00")]
	} else if n := len(path) - len("/"); n > 0 && path[n-1] != '/' {
		path = path[:n]
	}
	return Key{host, path, exact}
}

// escapeBad percent-encodes what must not stand in a raw path, and what is not
// UTF-8, which JSON could not hold.
func escapeBad(path string) string {
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

// canonical returns the key under which the tree holds k, and k itself as it
// is kept: host in lower case, no trailing slash on a prefix.
func (k Key) canonical() (string, Key, error) {
	host, err := canonicalPattern(k.Host)
	if err != nil {
		return "", k, &FieldError{"host", k.Host, err.Error()}
	}
	if len(k.Path) > MaxPath {
		return "", k, &FieldError{"path", k.Path[:32] + "…", fmt.Sprintf("must be at most %d bytes long", MaxPath)}
	}
	scan, err := scanPath(k.Path)
	switch {
	case err != nil:
		return "", k, &FieldError{"path", k.Path, err.Error()}
	case strings.Contains(k.Path, "?"):
		return "", k, &FieldError{"path", k.Path, "must not contain ? (a route has no query; write %3F for the character)"}
	case scan.dotted:
		return "", k, &FieldError{"path", k.Path, "must not contain the segments . and .."}
	}
	path := k.Path
	if !k.Exact {
		path = strings.TrimSuffix(path, "/")
	}
	decoded, end := path, "/"
	if scan.escaped {
		decoded = string(appendPath(nil, path, len(path)))
	}
	if k.Exact {
		end = "/\x00"
	}
	canonical := host + "\x00" + decoded + end
	// The kept strings share the tree key's memory where they can.
	kept := Key{Host: canonical[:len(host)], Path: path, Exact: k.Exact}
	if after := canonical[len(host)+1:]; strings.HasPrefix(after, path) {
		kept.Path = after[:len(path)]
	}
	if !k.Exact && (path == "" || path[len(path)-1] == '/') {
		kept.Path += "/" // or it would be another key
	}
	return canonical, kept, nil
}

// segments returns how many segments the path in a tree key has; of the path
// "/" of a prefix route, none.
func segments(key string) int {
	return strings.Count(key[strings.IndexByte(key, 0):], "/") - 1
}

// Errors of paths and hosts. As texts they complete "path must …".
var (
	errPathSlash   = errors.New("must begin with /")
	errPathByte    = errors.New(`must not contain a space, # \ or control bytes unless percent-encoded`)
	errPathEscape  = errors.New("must have two hexadecimal digits after each %")
	errPathNUL     = errors.New("must not contain %00")
	errPathStrict  = errors.New("must not contain %2F, %5C or ; here")
	errHostByte    = errors.New("must consist of ASCII letters, digits, - and _ in labels of 1 to 63 bytes, with dots between")
	errHostLong    = errors.New("must be at most 253 bytes long")
	errHostPort    = errors.New("must have a decimal port after the colon, or none")
	errHostAddress = errors.New("must be an IPv6 address without a zone in brackets")
	errHostPattern = errors.New("must be a host without a port, *.host, **.host, or empty for any")
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

// A pathScan says which work a valid path needs before it can be compared.
type pathScan struct {
	escaped bool // has percent-encoded bytes
	dotted  bool // has segments . or .., in any spelling
}

// scanPath reads a raw path once and says whether it is valid.
func scanPath(path string) (scan pathScan, err error) {
	if path == "" || path[0] != '/' {
		return scan, errPathSlash
	}
	for i := plainBytes(path); i < len(path); i++ {
		switch pathClass[path[i]] {
		case slashByte:
			if i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '%') && dots(segmentAt(path, i+1)) > 0 {
				scan.dotted = true
			}
		case percentByte:
			c, ok := unescape(path, i)
			if !ok {
				return scan, errPathEscape
			}
			if c == 0 {
				return scan, errPathNUL
			}
			scan.escaped = true
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

// strictPath refuses what a valid path may hold but some servers read as
// something else: an escaped slash or backslash, and a semicolon.
func strictPath(path string) error {
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

// appendPath appends the canonical form of a valid path without dot segments:
// each byte decoded once, but / and % inside a segment kept escaped. It stops
// once dst has grown to limit bytes, by two more at most.
func appendPath(dst []byte, path string, limit int) []byte {
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

// resolveDots removes the dot segments of a valid path (RFC 3986 §5.2.4) and
// leaves the spelling of all others as it is. A path without dot segments is
// returned as it came.
func resolveDots(path string) string {
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

// validQuery refuses what would end a request line.
func validQuery(query string) error {
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

// segmentAt returns the segment of path that begins at i.
func segmentAt(path string, i int) string {
	if n := strings.IndexByte(path[i:], '/'); n >= 0 {
		return path[i : i+n]
	}
	return path[i:]
}

// cutSegments splits a raw path behind its first n segments.
func cutSegments(path string, n int) (prefix, rest string) {
	i := 0
	for ; n > 0; n-- {
		i += 1 + len(segmentAt(path, i+1))
	}
	return path[:i], path[i:]
}

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

// hostClass maps each byte of a host label to its canonical form, others to 0.
var hostClass = func() (class [256]byte) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyz0123456789-_.") {
		class[c] = c
		if 'a' <= c && c <= 'z' {
			class[c-'a'+'A'] = c // ASCII only: Unicode folding would turn the Kelvin sign into k
		}
	}
	return
}()

// scanHost takes a request's host apart: the name or address without port,
// brackets and trailing dot. It is canonical already if plain; otherwise
// appendHost makes it so.
func scanHost(hostport string) (host string, plain bool, err error) {
	if isPlainHost(hostport) {
		return hostport, true, nil
	}
	host = hostport
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 || validPort(host[end+1:]) != nil {
			return "", false, errHostAddress
		}
		host = host[1:end]
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", false, errHostAddress
		}
		return host, false, nil
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if err := validPort(host[i:]); err != nil || i == 0 {
			return "", false, errHostPort
		}
		host = host[:i]
	}
	label := 0
	for i := 0; i < len(host); i++ {
		c := hostClass[host[i]]
		if c == 0 {
			return "", false, errHostByte
		}
		if c == '.' {
			if label == 0 {
				return "", false, errHostByte
			}
			label = -1
		}
		if label++; label > 63 {
			return "", false, errHostByte
		}
	}
	if host != "" && label == 0 {
		host = host[:len(host)-1] // the dot of a fully qualified name
	}
	if len(host) > MaxHost {
		return "", false, errHostLong
	}
	return host, false, nil
}

// isPlainHost reports whether host is a name, or nothing, in canonical form.
func isPlainHost(host string) bool {
	label := 0
	for i := range len(host) {
		c := host[i]
		if hostClass[c] != c || c == 0 {
			return false
		}
		if c == '.' {
			if i == label || i-label > 63 {
				return false
			}
			label = i + 1
		}
	}
	return len(host) <= MaxHost && (label < len(host) && len(host)-label <= 63 || host == "")
}

// appendHost appends the canonical form of a host that scanHost returned.
func appendHost(dst []byte, host string) []byte {
	if strings.IndexByte(host, ':') >= 0 {
		addr, _ := netip.ParseAddr(host)
		return addr.AppendTo(dst)
	}
	for i := range len(host) {
		dst = append(dst, hostClass[host[i]])
	}
	return dst
}

// validPort reports whether s is empty or a colon and a port (or nothing, as
// RFC 3986 §3.2.3 allows).
func validPort(s string) error {
	if s == "" {
		return nil
	}
	if s[0] != ':' || len(s) > 6 {
		return errHostPort
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return errHostPort
		}
	}
	return nil
}

// canonicalPattern returns the canonical form of a route's host.
func canonicalPattern(pattern string) (string, error) {
	if isPlainHost(pattern) { // most are; the plain form of an IPv4 address is the only one
		return pattern, nil
	}
	if addr, err := netip.ParseAddr(strings.Trim(pattern, "[]")); err == nil && addr.Zone() == "" {
		return addr.String(), nil
	}
	stars := len(pattern) - len(strings.TrimLeft(pattern, "*"))
	name := pattern[stars:]
	if stars > 0 {
		if stars > 2 || len(name) < 2 || name[0] != '.' {
			return "", errHostPattern
		}
		name = name[1:]
	}
	if strings.ContainsAny(name, ":[]") {
		return "", errHostPattern
	}
	host, _, err := scanHost(name)
	if err != nil {
		return "", err
	}
	canonical := appendHost(nil, host)
	if stars > 0 {
		return pattern[:stars] + "." + string(canonical), nil
	}
	return string(canonical), nil
}
