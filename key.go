package slipswitch

import (
	"fmt"
	"strings"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// The tree key of a route is
//
//	host NUL path "/"        for a prefix route
//	host NUL path "/" NUL    for an exact route
//
// with host and path in their canonical form (internal/canon). A prefix loses one
// trailing slash. Neither host nor path contains NUL, so a byte prefix of a key that
// ends in "/" is a segment prefix of its path.

// Limits on what a [Key] may hold, in bytes. MaxHost is 253, as in DNS.
const (
	MaxPath = 2 << 10
	MaxHost = canon.MaxHost
)

// A Key is the identity of a route. Two keys of one route may be spelt
// differently ("/a" and "/a/"): compare them by [Key.Canonical], not by ==.
type Key struct {
	// Host is a host name, an IP address without brackets, "*.example.com" (exactly
	// one label before it), "**.example.com" (one or more), or "" for any host.
	Host string `json:"host,omitempty"`

	// Path begins with a slash. Percent-encoded and plain spellings of a path are
	// equal. A prefix is the same with and without one trailing slash.
	Path string `json:"path"`

	// Exact keys match only their path; others match a prefix of whole segments.
	Exact bool `json:"exact,omitempty"`
}

// String returns host and path as in a URL. An exact key has "=" before that.
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

// ParseKey parses what [Key.String] returns. Its error is a [*FieldError], wrapped.
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

// Canonical returns the canonical spelling of k: two keys are those of one route
// if, and only if, their canonical spellings are equal. It is UTF-8 without spaces
// and control bytes. The error is a [*FieldError], wrapped.
func (k Key) Canonical() (Key, error) {
	key, kept, err := k.canonical()
	if err != nil {
		return k, fmt.Errorf("slipswitch: key: %w", err)
	}
	kept.Path = canon.EscapePath(splitKey(key).Path)
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

// canonical returns the tree key of k, and k as a route keeps it: the host in lower
// case, a prefix without its trailing slash, the path otherwise as it is spelt.
func (k Key) canonical() (string, Key, error) {
	host, err := canon.HostPattern(k.Host)
	if err != nil {
		return "", k, &FieldError{"host", k.Host, err.Error()}
	}
	if len(k.Path) > MaxPath {
		return "", k, &FieldError{"path", k.Path[:32] + "…", fmt.Sprintf("must be at most %d bytes long", MaxPath)}
	}
	scan, err := canon.ScanPath(k.Path)
	switch {
	case err != nil:
		return "", k, &FieldError{"path", k.Path, err.Error()}
	case strings.Contains(k.Path, "?"):
		return "", k, &FieldError{"path", k.Path, "must not contain ? (a route has no query; write %3F for the character)"}
	case scan.Dotted:
		return "", k, &FieldError{"path", k.Path, "must not contain the segments . and .."}
	}
	path := k.Path
	if !k.Exact {
		path = strings.TrimSuffix(path, "/")
	}
	decoded, end := path, "/"
	if scan.Escaped {
		decoded = string(canon.AppendPath(nil, path, len(path)))
	}
	if k.Exact {
		end = "/\x00"
	}
	canonical := host + "\x00" + decoded + end
	// The kept strings share the tree key's memory if they can.
	kept := Key{Host: canonical[:len(host)], Path: path, Exact: k.Exact}
	if after := canonical[len(host)+1:]; strings.HasPrefix(after, path) {
		kept.Path = after[:len(path)]
	}
	if !k.Exact && (path == "" || path[len(path)-1] == '/') {
		kept.Path += "/" // else it would be another key
	}
	return canonical, kept, nil
}

// segments returns the number of segments of the path in a tree key. The prefix
// "/" has none.
func segments(key string) int {
	return strings.Count(key[strings.IndexByte(key, 0):], "/") - 1
}
