package canon

import (
	"errors"
	"net/netip"
	"strings"
)

// MaxHost is how many bytes a host may have.
const MaxHost = 253

// Errors of hosts. As texts they complete "host must …".
var (
	errHostByte    = errors.New("must have labels of 1 to 63 ASCII letters, digits, - and _, with dots between; write other letters as Punycode (xn--)")
	errHostLong    = errors.New("must be at most 253 bytes long")
	errHostPort    = errors.New("must have a decimal port after the colon, or none")
	errHostAddress = errors.New("must be an IPv6 address in brackets, without a zone")
	errHostPattern = errors.New("must be a host without a port, *.host, **.host, or empty for any")
)

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

// ScanHost returns the name or address in a request's host, without port,
// brackets and trailing dot. If plain, that is canonical already. Otherwise
// AppendHost writes its canonical form. The error completes "host must …".
func ScanHost(hostport string) (host string, plain bool, err error) {
	if IsPlainHost(hostport) {
		return hostport, true, nil
	}
	host = hostport
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 || checkPort(host[end+1:]) != nil {
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
		if err := checkPort(host[i:]); err != nil || i == 0 {
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

// IsPlainHost reports whether host is empty or a name in canonical form.
func IsPlainHost(host string) bool {
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

// AppendHost appends the canonical form of a host that ScanHost returned.
func AppendHost(dst []byte, host string) []byte {
	if strings.IndexByte(host, ':') >= 0 {
		addr, _ := netip.ParseAddr(host)
		return addr.AppendTo(dst)
	}
	for i := range len(host) {
		dst = append(dst, hostClass[host[i]])
	}
	return dst
}

// checkPort refuses all but nothing and a colon with a port after it. The port
// may be empty (RFC 3986 §3.2.3).
func checkPort(s string) error {
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

// HostPattern returns the canonical form of a route's host: a name, an address,
// *.name, **.name, or nothing. Its error completes "host must …".
func HostPattern(pattern string) (string, error) {
	if IsPlainHost(pattern) { // most are; the plain form of an IPv4 address is the only one
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
	if strings.ContainsAny(name, ":[]*") {
		return "", errHostPattern
	}
	host, _, err := ScanHost(name)
	if err != nil {
		return "", err
	}
	canonical := AppendHost(nil, host)
	if stars > 0 {
		return pattern[:stars] + "." + string(canonical), nil
	}
	return string(canonical), nil
}
