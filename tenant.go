package slipswitch

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/headers"
)

// Tenants that share a host: for a browser, cookies, storage and permissions belong
// to the host, so paths are no boundary between tenants. A host for each tenant is
// one. This file does what can be done if they must share a host.

// confine restricts a tenant's response to its path. script says that the request
// is for a service worker's script.
func confine(header http.Header, prefix string, script bool) {
	for name := range header {
		if isForWholeHost(name) {
			delete(header, name)
		}
	}
	// The default scope of a script at the bare path /a, without a slash, is all of
	// /. So a script that asks for no scope gets one, too.
	scope := header["Service-Worker-Allowed"]
	if scope == nil && !script {
		return
	}
	if len(scope) != 1 || !isBelow(scope[0], prefix+"/") {
		header["Service-Worker-Allowed"] = []string{prefix + "/"}
	}
}

// isBelow reports whether a path, however a browser resolves it, is below another
// that ends in a slash.
func isBelow(path, above string) bool {
	scan, err := canon.ScanPath(path)
	return err == nil && !scan.Dotted && !scan.Escaped && strings.HasPrefix(path, above)
}

// isForWholeHost reports whether a field, in canonical spelling, applies to the whole
// host, or to a server between client and gateway.
func isForWholeHost(name string) bool {
	switch name {
	case "Clear-Site-Data", "Strict-Transport-Security", "Nel", "Report-To", "Alt-Svc", "X-Sendfile":
		return true
	}
	return strings.HasPrefix(name, "X-Accel-")
}

func (r *Route) rewritesCookies() bool {
	return r.guardsCookies() || r.RestorePath || r.Sticky != (Sticky{})
}

// guardsCookies reports whether upstreams must not set all cookies.
func (r *Route) guardsCookies() bool {
	return r.Tenant || len(r.Headers.HideCookies) > 0
}

// rewriteCookies drops the platform's cookies from a response, and gives the others
// their public path.
func (r *Route) rewriteCookies(header http.Header, prefix string) {
	var kept []string
	for _, cookie := range header["Set-Cookie"] {
		pair, _, _ := strings.Cut(cookie, ";")
		name, value, found := strings.Cut(pair, "=")
		if name = headers.CookieName(name); name == "" || !found {
			// A nameless cookie, "a" or "=a=b", is sent back as "a" or "a=b".
			if r.guardsCookies() {
				continue
			}
			if name == "" {
				name, _, _ = strings.Cut(value, "=")
				name = headers.CookieName(name)
			}
		}
		if r.hidesCookie(name) {
			continue
		}
		if r.Tenant || r.RestorePath {
			cookie = r.rewriteCookie(cookie, prefix)
		}
		kept = append(kept, cookie)
	}
	if kept == nil {
		delete(header, "Set-Cookie")
		return
	}
	header["Set-Cookie"] = kept
}

// rewriteCookie gives a cookie one Path, which is below the prefix. A browser uses
// the last Path of several, and the directory of the request if there is none.
func (r *Route) rewriteCookie(cookie, prefix string) string {
	attributes := strings.Split(cookie, ";")
	kept := attributes[:1]
	path := ""
	for _, attribute := range attributes[1:] {
		name, value, _ := strings.Cut(attribute, "=")
		switch name = strings.Trim(name, " \t"); {
		case headers.EqualFold(name, "path"):
			path = strings.Trim(value, " \t")
		case headers.EqualFold(name, "domain") && r.Tenant:
		default:
			kept = append(kept, attribute)
		}
	}
	prefix = strings.TrimSuffix(headers.CookiePath(prefix), "/")
	switch {
	case isWithin(path, prefix):
	case r.StripPath && path != "/" && strings.HasPrefix(path, "/"):
		path = prefix + path
	case r.Tenant || path != "":
		path = prefix
	}
	if path == "" && r.Tenant {
		path = "/"
	}
	if path != "" {
		kept = append(kept, " Path="+path)
	}
	return strings.Join(kept, ";")
}

// isWithin reports whether a path, which may have a query, equals the prefix or is
// below it.
func isWithin(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && path != "" && (rest == "" || strings.IndexByte("/?#", rest[0]) >= 0)
}

// restoreLocation puts the prefix back before a Location on the upstream itself,
// and removes the upstream's address from it.
func (x *exchange) restoreLocation(header http.Header, prefix string, t *target) {
	if said := header["Location"]; len(said) == 1 {
		if path, ok := x.ownPath(said[0], t); ok {
			header["Location"] = []string{x.publicPath(path, prefix, t)}
		}
	}
}

// ownPath returns the path of a URL, with query and fragment, if it is on the
// upstream itself. It returns false for a relative path, which needs no rewriting.
// It does not parse the path: a browser follows "/100%", which net/url refuses.
func (x *exchange) ownPath(location string, t *target) (string, bool) {
	scheme, rest, found := strings.Cut(location, "//")
	if !found || strings.ContainsAny(scheme, "/?#") {
		return location, strings.HasPrefix(location, "/")
	}
	scheme = strings.ToLower(scheme)
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, path := rest[:end], rest[end:]
	if scheme != "" && scheme != "http:" && scheme != "https:" || !x.isOwn(scheme, authority, t) {
		return "", false
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return path, true
}

// isOwn reports whether a URL names the upstream: by the address that the gateway
// dials, by the Host that it forwards, or by the host that the client asked for.
func (x *exchange) isOwn(scheme, authority string, t *target) bool {
	for _, own := range []string{t.addr, x.match.options().UpstreamHost, x.match.host, x.client.Host} {
		if own != "" && isHost(scheme, authority, own) {
			return true
		}
	}
	host, port := x.client.Host, x.client.Port
	return host != "" && explicitPort(host) == "" && port != usualPort(x.client.Scheme) && isHost(scheme, authority, host+":"+port)
}

// isHost reports whether a URL is for a host, with or without a port. A host without
// one gets the default port of the URL's scheme.
func isHost(scheme, authority, hostport string) bool {
	usual := usualPort(strings.TrimSuffix(scheme, ":"))
	said, _, err := canon.ScanHost(authority)
	host, _, other := canon.ScanHost(hostport)
	return err == nil && other == nil && headers.EqualFold(said, host) &&
		cmp.Or(explicitPort(authority), usual) == cmp.Or(explicitPort(hostport), usual)
}

// publicPath returns the client's path of what the upstream has at path.
func (x *exchange) publicPath(path, prefix string, t *target) string {
	if x.match.options().StripPath && !isWithin(path, prefix) {
		if t.path != "" && isWithin(path, t.path) {
			path = "/" + strings.TrimPrefix(path[len(t.path):], "/")
		}
		path = prefix + path
	}
	return "/" + strings.TrimLeft(path, `/\`) // else it might name a host: a browser reads a backslash as a slash
}
