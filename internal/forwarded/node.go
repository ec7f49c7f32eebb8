package forwarded

import (
	"net/netip"
	"strings"
)

// A Node is a client or a proxy: an address, or an obfuscated identifier (RFC
// 7239 §6.3). The zero Node is unknown.
type Node struct {
	Addr netip.Addr
	ID   string // begins with _
}

// maxID bounds an identifier, in bytes: it is kept with a tunnel.
const maxID = 64

// ParseNode reads a node with or without a port, which it drops. An IPv6 address
// may lack its brackets. What is neither address nor identifier is unknown, and
// so is an address with a zone.
func ParseNode(text string) Node {
	text = trim(text)
	if strings.HasPrefix(text, "_") {
		id, port, _ := strings.Cut(text, ":")
		if len(id) < 2 || len(id) > maxID || !isObfuscated(id) || !isObfuscated(port) {
			return Node{}
		}
		return Node{ID: strings.Clone(id)}
	}
	name := text
	if inner, ok := strings.CutPrefix(text, "["); ok {
		var port string
		if name, port, ok = strings.Cut(inner, "]"); !ok || port != "" && port[0] != ':' || !isObfuscated(strings.TrimPrefix(port, ":")) {
			return Node{}
		}
	} else if host, port, ok := strings.Cut(text, ":"); ok && strings.IndexByte(port, ':') < 0 {
		if name = host; !isObfuscated(port) {
			return Node{}
		}
	}
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" || name != text && addr.Is4() == strings.HasPrefix(text, "[") {
		return Node{}
	}
	return Node{Addr: addr.Unmap()}
}

// isObfuscated reports whether s has only what ports and identifiers consist of.
func isObfuscated(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// String returns the address without brackets, the identifier, or "unknown".
func (n Node) String() string {
	switch {
	case n.Addr.IsValid():
		return n.Addr.String()
	case n.ID != "":
		return n.ID
	}
	return "unknown"
}

// An Element is what one proxy says in Forwarded.
type Element struct{ For, Proto, Host string }

// Parse reads one value of Forwarded. If it is not well-formed, then only its
// last element is returned, and false: a client that opens a quote cannot make
// the element that its proxy has appended a part of its own.
func Parse(value string) ([]Element, bool) {
	if elements, ok := parse(value); ok {
		return elements, true
	}
	last, _ := parse(value[strings.LastIndexByte(value, ',')+1:])
	return last, false
}

func parse(value string) (elements []Element, ok bool) {
	for rest, more := value, true; more; {
		var e Element
		if e, rest, more, ok = parseElement(rest); !ok {
			return nil, false
		}
		if e != (Element{}) { // an empty one means nothing (RFC 9110 §5.6.1)
			elements = append(elements, e)
		}
	}
	return elements, true
}

// parseElement reads up to a comma, which more reports. Spaces around delimiters
// and unquoted colons are common, and harmless.
func parseElement(s string) (e Element, rest string, more, ok bool) {
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return e, "", false, true
		}
		switch s[0] {
		case ',':
			return e, s[1:], true, true
		case ';':
			s = s[1:]
			continue
		}
		end := strings.IndexAny(s, "=,;\"")
		if end < 0 || s[end] != '=' {
			return e, "", false, false
		}
		name := trim(s[:end])
		var value string
		if value, s, ok = parseValue(strings.TrimLeft(s[end+1:], " \t")); !ok {
			return e, "", false, false
		}
		var field *string
		switch strings.ToLower(name) {
		case "for":
			field = &e.For
		case "proto":
			field = &e.Proto
		case "host":
			field = &e.Host
		default:
			continue // by, and extensions
		}
		if *field != "" || value == "" {
			return e, "", false, false
		}
		*field = value
	}
}

// parseValue reads a token or a quoted string, and what ends it.
func parseValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ",;\"")
		if end < 0 {
			end = len(s)
		}
		value = trim(s[:end])
		return value, s[end:], !strings.ContainsAny(value, " \t") && !strings.HasPrefix(s[end:], `"`)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			rest = strings.TrimLeft(s[i+1:], " \t")
			return b.String(), rest, rest == "" || rest[0] == ',' || rest[0] == ';'
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// AppendFor appends a value of X-Forwarded-For.
func AppendFor(b []byte, nodes []Node) []byte {
	for i, node := range nodes {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = node.append(b)
	}
	return b
}

func (n Node) append(b []byte) []byte {
	if n.Addr.IsValid() {
		return n.Addr.AppendTo(b)
	}
	return append(b, n.String()...)
}

// Append appends a Forwarded value: one element for each node, the first of
// which has the host, unless that is empty, and the scheme.
func Append(b []byte, nodes []Node, host, proto string) []byte {
	for i, node := range nodes {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, "for="...)
		if node.Addr.Is6() {
			b = append(b, `"[`...)
			b = node.Addr.AppendTo(b)
			b = append(b, `]"`...)
		} else {
			b = node.append(b)
		}
		if i > 0 {
			continue
		}
		switch {
		case strings.Contains(host, ":"): // no token
			b = append(b, `;host="`...)
			b = append(b, host...)
			b = append(b, '"')
		case host != "":
			b = append(b, ";host="...)
			b = append(b, host...)
		}
		b = append(b, ";proto="...)
		b = append(b, proto...)
	}
	return b
}
