package slipswitch

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/headers"
)

// Several tenants on one host: a path is no boundary in a browser, whose
// cookies, storage and permissions are the host's. A host for each is one. What
// can be done where paths must do is done here.

// confine cuts a tenant's response, to a request for a service worker's script or
// for something else, to its path.
func confine(header http.Header, prefix string, script bool) {
	for name := range header {
		if isForWholeHost(name) {
			delete(header, name)
		}
	}
	// A script at the bare path /a, without a slash, would be in charge of all of
	// /. So a script that asks for nothing is told its bounds, too.
	scope := header["Service-Worker-Allowed"]
	if scope == nil && !script {
		return
	}
	if len(scope) != 1 || !isBelow(scope[0], prefix+"/") {
		header["Service-Worker-Allowed"] = []string{prefix + "/"}
	}
}

// isBelow reports whether a path, however it is read, is below another that
// ends in a slash.
func isBelow(path, above string) bool {
	scan, err := canon.ScanPath(path)
	return err == nil && !scan.Dotted && !scan.Escaped && strings.HasPrefix(path, above)
}

// isForWholeHost reports whether a field, in canonical spelling, would have an
// effect on all of the host, or on a server before the gateway.
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

// guardsCookies reports whether there are cookies that upstreams must not set.
func (r *Route) guardsCookies() bool {
	return r.Tenant || len(r.Headers.HideCookies) > 0
}

// rewriteCookies drops what a response sets of the platform's cookies, and
// gives the others the public path.
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

// rewriteCookie gives a cookie a path below the prefix, which is the last word:
// a browser takes the last Path, and without one the directory of the request.
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

// isWithin reports whether a path, which may have a query, is the prefix or
// below it.
func isWithin(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && path != "" && (rest == "" || strings.IndexByte("/?#", rest[0]) >= 0)
}

// restoreLocation puts the prefix back before a Location that is the
// upstream's own, and takes the upstream's address out of it.
func (x *exchange) restoreLocation(header http.Header, prefix string, t *target) {
	if said := header["Location"]; len(said) == 1 {
		if path, ok := x.ownPath(said[0], t); ok {
			header["Location"] = []string{x.publicPath(path, prefix, t)}
		}
	}
}

// ownPath returns the path of a URL, with query and fragment, if it is on the
// upstream itself; false for relative paths, too, which need no help. The path is
// not looked at: a browser follows "/100%", which net/url refuses.
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

// isOwn reports whether a URL names the upstream: as it is dialled, by the Host
// that it was sent, or by the one that the client asked for.
func (x *exchange) isOwn(scheme, authority string, t *target) bool {
	for _, own := range []string{t.addr, x.match.options().UpstreamHost, x.match.host, x.client.Host} {
		if own != "" && isHost(scheme, authority, own) {
			return true
		}
	}
	host, port := x.client.Host, x.client.Port
	return host != "" && explicitPort(host) == "" && port != usualPort(x.client.Scheme) && isHost(scheme, authority, host+":"+port)
}

// isHost reports whether a URL is for a host, with or without port. Of a host
// without one it is not known which is the default.
func isHost(scheme, authority, hostport string) bool {
	usual := usualPort(strings.TrimSuffix(scheme, ":"))
	said, _, err := canon.ScanHost(authority)
	host, _, other := canon.ScanHost(hostport)
	return err == nil && other == nil && headers.EqualFold(said, host) &&
		cmp.Or(explicitPort(authority), usual) == cmp.Or(explicitPort(hostport), usual)
}

// publicPath returns the path by which a client finds what is at a path of
// the upstream.
func (x *exchange) publicPath(path, prefix string, t *target) string {
	if x.match.options().StripPath && !isWithin(path, prefix) {
		if t.path != "" && isWithin(path, t.path) {
			path = "/" + strings.TrimPrefix(path[len(t.path):], "/")
		}
		path = prefix + path
	}
	return "/" + strings.TrimLeft(path, `/\`) // else it might name a host: to a browser a backslash is a slash
}
