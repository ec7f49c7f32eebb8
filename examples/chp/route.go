package main

import (
	"strings"

	"github.com/slipswitch/slipswitch"
)

// route makes of a route what the command line says of all of them.
func (o *options) route(r *slipswitch.Route) {
	r.StripPath = o.noIncludePrefix
	if timeout := o.upstreamTimeout(); timeout > 0 {
		r.DialTimeout, r.HandshakeTimeout, r.HeaderTimeout, r.StreamTimeout = timeout, timeout, timeout, timeout
	}
	if len(r.Upstreams) == 0 {
		return // whoever else writes to the store
	}
	target := r.Upstreams[0].URL
	if o.changeOrigin {
		r.UpstreamHost = hostOf(target)
	}
	if o.noPrependPath {
		if bare, path := cutPath(target); path != "" {
			r.Upstreams = slipswitch.To(bare)
			r.Labels = map[string]string{"target": target} // as it was put, for the API to show
		}
	}
}

// cutPath cuts the path off a URL; a socket's is none.
func cutPath(target string) (bare, path string) {
	scheme, rest, ok := strings.Cut(target, "://")
	if i := strings.IndexByte(rest, '/'); ok && i >= 0 && scheme != "unix" {
		return scheme + "://" + rest[:i], rest[i:]
	}
	return target, ""
}
