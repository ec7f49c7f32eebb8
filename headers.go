package slipswitch

import (
	"iter"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// cleanRequest gives an admitted request the headers and trailers that may go
// on, for plain requests and handshakes alike. What Middleware adds later
// stays: a client cannot have it removed by naming it in Connection.
//
// Dropped are hop-by-hop fields and those that Connection names (RFC 9110
// §7.6.1), names with an underscore (many servers read X_Auth_User as
// X-Auth-User), and, unless the peer is trusted, all that speaks of where the
// request came from.
func (p *Proxy) cleanRequest(r *http.Request, match Match) {
	peer := peerAddr(r.RemoteAddr)
	trusted := p.trusts(peer)
	passes := func(name string) bool {
		return !isHopByHop(name) && strings.IndexByte(name, '_') < 0 && (trusted || !isForwarding(name))
	}
	in := r.Header
	r.Header = make(http.Header, len(in)+6)
	for name, values := range in {
		if passes(name) {
			r.Header[name] = values
		}
	}
	if r.Trailer != nil {
		names := r.Trailer
		r.Trailer = make(http.Header, len(names))
		for name := range names {
			if passes(name) {
				r.Trailer[name] = nil // the value comes behind the body
			}
		}
	}
	for name := range tokens(in["Connection"]) {
		name = http.CanonicalHeaderKey(name)
		delete(r.Header, name)
		delete(r.Trailer, name)
	}
	if hasToken(in["Te"], "trailers") {
		r.Header["Te"] = []string{"trailers"} // gRPC asks for it
	}
	p.setForwarded(r, match, peer)
	setVia(r)
}

// maxVia is how many times a request may pass gateways of this kind. A gateway
// that leads to itself, maybe by way of others, would else go on until its
// descriptors run out.
const maxVia = 8

// loops reports whether a request has passed too many of them. What a client
// makes up it only does to itself.
func loops(header http.Header) bool {
	n := 0
	for hop := range tokens(header["Via"]) {
		if _, by, _ := strings.Cut(hop, " "); by == "slipswitch" {
			n++
		}
	}
	return n >= maxVia
}

// setVia says that the request has passed (RFC 9110 §7.6.3).
func setVia(r *http.Request) {
	by := "1.1 slipswitch"
	if r.ProtoMajor > 1 {
		by = "2 slipswitch"
	}
	if before := r.Header["Via"]; before != nil {
		by = strings.Join(before, ", ") + ", " + by
	}
	r.Header["Via"] = []string{by}
}

// setForwarded says who asks, and for what, as the gateway saw it. What a
// trusted proxy has said before stays; from untrusted peers nothing is left to
// stay by now.
func (p *Proxy) setForwarded(r *http.Request, match Match, peer netip.Addr) {
	values := make([]string, 0, 7) // one allocation for all
	set := func(name, value string) {
		values = append(values, value)
		r.Header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	keep := func(name string, valid func(string) bool) bool {
		said := r.Header[name]
		return len(said) == 1 && valid(said[0])
	}

	client, chain := p.client(peer, r.Header["X-Forwarded-For"])
	set("X-Forwarded-For", chain)
	set("X-Real-Ip", client)
	if said := r.Header["Forwarded"]; said != nil && peer.IsValid() {
		set("Forwarded", strings.Join(said, ", ")+`, for="`+bracketed(peer)+`"`)
	}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	if keep("X-Forwarded-Proto", func(s string) bool { return s == "http" || s == "https" }) {
		proto = r.Header["X-Forwarded-Proto"][0]
	} else {
		set("X-Forwarded-Proto", proto)
	}
	host := forwardedHost(r.Host)
	if keep("X-Forwarded-Host", func(s string) bool { _, _, err := scanHost(s); return err == nil && s != "" }) {
		host = r.Header["X-Forwarded-Host"][0]
	} else if host != "" {
		set("X-Forwarded-Host", host)
	} else {
		delete(r.Header, "X-Forwarded-Host")
	}
	if !keep("X-Forwarded-Port", func(s string) bool { return s != "" && validPort(":"+s) == nil }) {
		set("X-Forwarded-Port", portOf(host, proto))
	}
	before := ""
	if keep("X-Forwarded-Prefix", func(s string) bool { scan, err := scanPath(s); return err == nil && !scan.dotted }) {
		before = strings.TrimRight(r.Header["X-Forwarded-Prefix"][0], "/")
	}
	if match.Route.StripPath {
		prefix, _ := match.split()
		before += prefix
	}
	if before != "" {
		set("X-Forwarded-Prefix", before)
	} else {
		delete(r.Header, "X-Forwarded-Prefix")
	}
}

// client returns the right-most address in the chain of forwarders that is not
// trusted, and the chain from there on: what stands left of it is only that
// client's word.
func (p *Proxy) client(peer netip.Addr, forwardedFor []string) (client, chain string) {
	if !peer.IsValid() {
		return "unknown", "unknown"
	}
	client = peer.String()
	if forwardedFor == nil {
		return client, client
	}
	hops := append(strings.Split(strings.Join(forwardedFor, ","), ","), client)
	first := len(hops) - 1
	for ; first > 0 && p.trusts(peer); first-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[first-1]))
		if err != nil || hop.Zone() != "" {
			break
		}
		peer = hop.Unmap()
		hops[first-1] = peer.String()
	}
	return hops[first], strings.Join(hops[first:], ", ")
}

func (p *Proxy) trusts(peer netip.Addr) bool {
	for _, prefix := range p.TrustedProxies {
		if prefix.Contains(peer) {
			return true
		}
	}
	return false
}

// peerAddr returns the address of a request's peer, or the zero Addr where it
// has none, as on a Unix socket.
func peerAddr(remote string) netip.Addr {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap().WithZone("")
}

func bracketed(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

// forwardedHost returns a valid Host header as it was matched, with its port.
func forwardedHost(hostport string) string {
	name, plain, err := scanHost(hostport)
	if err != nil || name == "" {
		return ""
	}
	if plain && (name == hostport || strings.HasPrefix(hostport, name+":")) {
		return hostport
	}
	name = string(appendHost(nil, name))
	if _, port, err := net.SplitHostPort(hostport); err == nil {
		return net.JoinHostPort(name, port)
	}
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

func portOf(host, proto string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") && i+1 < len(host) {
		return host[i+1:]
	}
	if proto == "https" {
		return "443"
	}
	return "80"
}

// restoreForwarded puts back what ReverseProxy deletes.
func restoreForwarded(out, in http.Header) {
	for _, name := range [...]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := in[name]; ok {
			out[name] = values
		}
	}
}

// removeHopByHop removes from a response what is between upstream and gateway.
func removeHopByHop(header http.Header) {
	for name := range tokens(header["Connection"]) {
		delete(header, http.CanonicalHeaderKey(name))
	}
	for name := range header {
		if isHopByHop(name) {
			delete(header, name)
		}
	}
}

// isHopByHop reports whether a field, in canonical spelling, is for one
// connection only.
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// isForwarding reports whether only a trusted proxy may set a field.
func isForwarding(name string) bool {
	return name == "Forwarded" || name == "X-Real-Ip" ||
		strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Original-")
}

// tokens yields the elements of a comma-separated field.
func tokens(values []string) iter.Seq[string] {
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

// hasToken reports whether a comma-separated field has a token, in any case.
// The comparison is ASCII's: "web\u017focket" is no websocket.
func hasToken(values []string, token string) bool {
	for t := range tokens(values) {
		if equalFold(t, token) {
			return true
		}
	}
	return false
}

func equalFold(a, b string) bool {
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

// isToken reports whether s is a token (RFC 9110 §5.6.2).
func isToken(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~") == ""
}
