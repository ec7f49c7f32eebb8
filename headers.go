package slipswitch

import (
	"net/http"
	"strings"

	"github.com/slipswitch/slipswitch/internal/headers"
)

// cleanRequest removes from an admitted request the headers and trailers that must
// not be forwarded, and reads its client. It does so for plain requests and
// handshakes alike. What Middleware adds later stays: a client cannot have it
// removed by naming it in Connection.
//
// It drops hop-by-hop fields, and those that Connection names (RFC 9110 §7.6.1). It
// drops names with anything but letters, digits and hyphens: many servers read
// X_Auth_User as X-Auth-User, and some X.Auth.User. Unless the peer is trusted, it
// drops all that speaks of where the request came from. What a trusted peer says of
// that stays even if Connection names it: many proxies pass their client's
// Connection on.
func (p *Proxy) cleanRequest(r *http.Request, x *exchange) {
	nodes, trusted := x.client.read(p, r)
	passes := func(name string) bool {
		return !headers.IsHopByHop(name) && headers.IsPlainName(name) && (trusted || !headers.IsForwarding(name))
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
			if passes(name) && !headers.IsForwarding(name) {
				r.Trailer[name] = nil // the value comes after the body
			}
		}
	}
	if named := in["Connection"]; named != nil {
		removeNamed(r, named)
	}
	if headers.HasToken(in["Te"], "trailers") {
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
	for name := range headers.Tokens(connection) {
		if name = http.CanonicalHeaderKey(name); !headers.IsForwarding(name) {
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
	for hop := range headers.Tokens(header["Via"]) {
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
