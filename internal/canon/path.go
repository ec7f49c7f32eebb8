// Package canon reads the hosts and paths of requests, so that the router and the
// admin API read one path as the same.
package canon

import "net/url"

// RawPath returns a URL's path as the client spelt it, unless a handler around
// this one has changed URL.Path. URL.EscapedPath would respell a path that is not
// spelt the usual way, and so lose the difference between / and %2F.
func RawPath(u *url.URL) string {
	if u.RawPath != "" {
		if path, err := url.PathUnescape(u.RawPath); err == nil && path == u.Path {
			return u.RawPath
		}
	}
	return u.EscapedPath()
}
