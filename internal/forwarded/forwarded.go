// Package forwarded reads and writes what proxies say about a request: Forwarded
// (RFC 7239) and the older X-Forwarded fields. It knows neither routes nor
// requests.
//
// Each proxy appends what it saw on the right:
//
//	X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.2        from the peer 10.0.0.1
//	                 │        │            └ written by 10.0.0.1, which is trusted
//	                 │        └ written by 10.0.0.2, which is trusted: the client
//	                 └ the client's own claim
//
// So a chain is read from the right, as long as the node that wrote an element is
// trusted. The last element read this way has the scheme and host that the client
// asked for.
package forwarded

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Said is what trusted proxies say of a request. Empty fields were not said, or
// are not valid.
type Said struct {
	// Nodes are the client and the proxies between it and the peer, in the order
	// in which the request passed them. None is unknown.
	Nodes []Node

	Proto string // "http" or "https"
	Host  string // with or without a port; not checked
	Port  string // not checked
}

// Read reads the fields of a request whose peer is trusted. Forwarded counts
// only without X-Forwarded-For, -Proto and -Host: a proxy that writes those
// passes a client's Forwarded on as it came.
//
// X-Forwarded-Proto, -Host and -Port may be lists. If a list has as many
// elements as X-Forwarded-For, the element of the client's hop counts, otherwise
// the first.
func Read(header http.Header, trusts func(netip.Addr) bool) Said {
	chain, protos, hosts := header["X-Forwarded-For"], header["X-Forwarded-Proto"], header["X-Forwarded-Host"]
	var said Said
	if chain == nil && protos == nil && hosts == nil {
		said = readForwarded(header["Forwarded"], trusts)
		said.Port = listed(header["X-Forwarded-Port"], 0, 0)
		return said
	}
	all := length(chain)
	at := all
	for element := range backward(chain) {
		at--
		if !said.add(element, trusts) {
			break
		}
	}
	slices.Reverse(said.Nodes)
	said.Proto = scheme(listed(protos, all, at))
	said.Host = listed(hosts, all, at)
	said.Port = listed(header["X-Forwarded-Port"], all, at)
	return said
}

func readForwarded(values []string, trusts func(netip.Addr) bool) (said Said) {
	more := true
	for i := len(values) - 1; i >= 0 && more; i-- {
		elements, whole := Parse(values[i])
		more = whole
		for j := len(elements) - 1; j >= 0; j-- {
			said.Proto, said.Host = scheme(elements[j].Proto), elements[j].Host
			if !said.add(elements[j].For, trusts) {
				more = false
				break
			}
		}
	}
	slices.Reverse(said.Nodes)
	return said
}

// add adds the next node to the left. It reports whether that is trusted.
func (s *Said) add(text string, trusts func(netip.Addr) bool) bool {
	node := ParseNode(text)
	if node == (Node{}) {
		return false
	}
	if s.Nodes == nil {
		s.Nodes = make([]Node, 0, 3) // most have one or two, and the caller adds the peer
	}
	s.Nodes = append(s.Nodes, node)
	return node.Addr.IsValid() && trusts(node.Addr)
}

// backward yields the elements of a list from the right, the empty ones too.
func backward(values []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := len(values) - 1; i >= 0; i-- {
			for rest, more := values[i], true; more; {
				var element string
				if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
					rest, element = rest[:comma], rest[comma+1:]
				} else {
					element, more = rest, false
				}
				if !yield(element) {
					return
				}
			}
		}
	}
}

func length(values []string) (n int) {
	for _, value := range values {
		n += 1 + strings.Count(value, ",")
	}
	return n
}

// listed returns the element of a list at an index of a chain of n.
func listed(values []string, n, at int) string {
	if values == nil {
		return ""
	}
	i := length(values)
	if i != n || at == n {
		at = 0
	}
	for element := range backward(values) {
		if i--; i == at {
			return trim(element)
		}
	}
	return ""
}

// scheme returns the HTTP scheme that a proxy means.
func scheme(said string) string {
	switch strings.ToLower(said) {
	case "https", "wss":
		return "https"
	case "http", "ws":
		return "http"
	}
	return ""
}

func trim(s string) string { return strings.Trim(s, " \t") }
