package main

import (
	"strings"

	"github.com/slipswitch/slipswitch"
)

// route applies the options of the command line to a route.
func (o *options) route(r *slipswitch.Route) {
	r.StripPath = o.noIncludePrefix
	if timeout := o.upstreamTimeout(); timeout > 0 {
		r.DialTimeout, r.HandshakeTimeout, r.HeaderTimeout, r.StreamTimeout = timeout, timeout, timeout, timeout
	}
	if len(r.Upstreams) == 0 {
		return // put by another program that writes to the store
	}
	target := r.Upstreams[0].URL
	if o.changeOrigin {
		r.UpstreamHost = hostOf(target)
	}
	if o.noPrependPath {
		if bare, path := cutPath(target); path != "" {
			r.Upstreams = slipswitch.To(bare)
			r.Labels = map[string]string{"target": target} // as it was put: the API shows it
		}
	}
}

// cutPath removes the path from a URL. The path of a Unix socket stays.
func cutPath(target string) (bare, path string) {
	scheme, rest, ok := strings.Cut(target, "://")
	if i := strings.IndexByte(rest, '/'); ok && i >= 0 && scheme != "unix" {
		return scheme + "://" + rest[:i], rest[i:]
	}
	return target, ""
}
