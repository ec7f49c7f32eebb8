package slipswitch

import (
	"iter"
	"net/http"
	"strings"
)

// cleanRequest gives an admitted request the headers and trailers that may go
// on, for plain requests and handshakes alike, and reads its client. What
// Middleware adds later stays: a client cannot have it removed by naming it in
// Connection.
//
// Dropped are hop-by-hop fields and those that Connection names (RFC 9110
// §7.6.1), names with anything but letters, digits and hyphens (many servers
// read X_Auth_User as X-Auth-User, and some X.Auth.User), and, unless the peer is
// trusted, all that speaks of where the request came from. What a trusted peer
// says of that stays even if Connection names it: many proxies pass their
// client's Connection on.
func (p *Proxy) cleanRequest(r *http.Request, x *exchange) {
	nodes, trusted := x.client.read(p, r)
	passes := func(name string) bool {
		return !isHopByHop(name) && isPlainName(name) && (trusted || !isForwarding(name))
	}
	in := r.Header
	r.Header = make(http.Header, len(in)+7)
	for name, values := range in {
		if passes(name) {
			r.Header[name] = values
		}
	}
	if r.Trailer != nil {
		names := r.Trailer
		r.Trailer = make(http.Header, len(names))
		for name := range names {
			if passes(name) && !isForwarding(name) {
				r.Trailer[name] = nil // the value comes after the body
			}
		}
	}
	if named := in["Connection"]; named != nil {
		removeNamed(r, named)
	}
	if hasToken(in["Te"], "trailers") {
		r.Header["Te"] = []string{"trailers"} // gRPC asks for it
	}
	holdTrailers(r)
	if trusted {
		x.client.setAliases(r.Header)
	}
	x.client.setForwarded(r, x.match, nodes)
	setVia(r)
}

// removeNamed removes the fields that Connection names.
func removeNamed(r *http.Request, connection []string) {
	for name := range tokens(connection) {
		if name = http.CanonicalHeaderKey(name); !isForwarding(name) {
			delete(r.Header, name)
			delete(r.Trailer, name)
		}
	}
}

// holdTrailers puts an empty field in the header for each trailer that may come,
// so that it is known which of them Middleware has deleted.
func holdTrailers(r *http.Request) {
	for name := range r.Trailer {
		if r.Header[name] == nil {
			r.Header[name] = nil
		}
	}
}

// settleTrailers lets only those trailers pass that Middleware has neither set
// nor deleted as fields of the header: some servers read one as the other.
func settleTrailers(r *http.Request) {
	for name := range r.Trailer {
		values, held := r.Header[name]
		if len(values) == 0 {
			delete(r.Header, name)
		}
		if !held || len(values) > 0 {
			delete(r.Trailer, name)
		}
	}
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
// connection only, or must never arrive: Proxy (httpoxy, CVE-2016-5385), and over
// HTTP/2 a Host beside the :authority that was matched.
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Proxy", "Host":
		return true
	}
	return false
}

// isPlainName reports whether a name has letters, digits and hyphens only.
func isPlainName(name string) bool {
	for i := range len(name) {
		if c := lower(name[i]); (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != ""
}

// isForwarding reports whether only a trusted proxy may set a field, since some
// server or framework reads the client's address, the scheme, the host, the path
// or the client's certificate from it.
func isForwarding(name string) bool {
	switch name[0] {
	case 'X', 'F', 'C', 'T', 'W', 'A', 'D', 'I', 'S', 'R':
	default:
		return false
	}
	switch name {
	case "Forwarded", "X-Forwarded", "Forwarded-For", "Forwarded-Proto", "Forwarded-Host", "X-Forward-For", "X-Forwarder-For",
		// the client's address
		"X-Client-Ip", "X-Clientip", "Client-Ip", "True-Client-Ip", "X-Cluster-Client-Ip", "X-Remote-Ip", "X-Remote-Addr", "Remote-Addr",
		"X-Originating-Ip", "X-Source-Ip", "X-Proxyuser-Ip", "X-Custom-Ip-Authorization", "X-Appengine-User-Ip", "X-Appengine-Remote-Addr",
		"X-Azure-Clientip", "X-Azure-Socketip", "X-Nf-Client-Connection-Ip", "X-Sucuri-Clientip", "X-Ms-Forwarded-Client-Ip", "X-Vercel-Forwarded-For",
		"Cf-Connecting-Ip", "Cf-Connecting-Ipv6", "Cf-Pseudo-Ipv4", "Fastly-Client-Ip", "Fly-Client-Ip", "Do-Connecting-Ip",
		"Incap-Client-Ip", "Ali-Cdn-Real-Ip", "Cdn-Src-Ip", "Cloudfront-Viewer-Address", "Wl-Proxy-Client-Ip",
		// scheme, host and path
		"X-Scheme", "X-Url-Scheme", "X-Proto", "X-Arr-Ssl", "Front-End-Https", "Cf-Visitor", "Cloudfront-Forwarded-Proto",
		"Fastly-Ssl", "Fly-Forwarded-Proto", "Fly-Forwarded-Port", "Fly-Forwarded-Ssl", "Wl-Proxy-Ssl",
		"X-Host", "X-Http-Host-Override", "X-Host-Override", "X-Rewrite-Url", "X-Override-Url", "X-Script-Name",
		// the client's certificate (RFC 9440)
		"Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "X-Arr-Clientcert":
		return true
	}
	for _, prefix := range [...]string{"X-Forwarded-", "X-Original-", "X-Real-", "X-Envoy-", "X-Ssl-", "Ssl-Client-", "X-Amzn-Mtls-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
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
