package headers

import (
	"net/http"
	"strings"
)

// RemoveHopByHop removes the hop-by-hop fields, and those that Connection names
// (RFC 9110 §7.6.1).
func RemoveHopByHop(header http.Header) {
	for name := range Tokens(header["Connection"]) {
		delete(header, http.CanonicalHeaderKey(name))
	}
	for name := range header {
		if IsHopByHop(name) {
			delete(header, name)
		}
	}
}

// IsHopByHop reports whether a field, in canonical spelling, is for one connection
// only. So it says of two that must never arrive: Proxy (httpoxy, CVE-2016-5385),
// and Host, which over HTTP/2 may stand beside the :authority that was matched.
func IsHopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Proxy", "Host":
		return true
	}
	return false
}

// IsPlainName reports whether a name has letters, digits and hyphens only.
func IsPlainName(name string) bool {
	for i := range len(name) {
		if c := lower(name[i]); (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != ""
}

// IsForwarding reports whether only a trusted proxy may set a field, in canonical
// spelling. Some server or framework reads from it the client's address or
// certificate, or the scheme, host or path of the request.
func IsForwarding(name string) bool {
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
