package slipswitch

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/slipswitch/slipswitch/internal/headers"
)

// Headers are the rules of a route for header fields. They are applied after
// Middleware, which so sees the fields that are hidden from the upstream, and
// does not see those that are set for it.
type Headers struct {
	// HideCookies and HideHeaders name cookies and fields of the platform's own.
	// Those of a request are not forwarded, and those of a response do not reach
	// the client. The name of a cookie may end in *.
	//
	// The platform's cookie is never forwarded, nor is any name that servers decode
	// to it (%73ession) or make the same variable of (.auth for _auth). Names differ
	// by case, as in browsers (RFC 6265): if session is hidden, a workspace can
	// still have a SESSION. For a platform that ignores case, list both.
	HideCookies []string `json:"hideCookies,omitempty"`
	HideHeaders []string `json:"hideHeaders,omitempty"`

	Request  HeaderRules `json:"request,omitzero"`  // for the request that is forwarded
	Response HeaderRules `json:"response,omitzero"` // for the upstream's response
}

// HeaderRules change a header: first Remove, then Set, then Add.
type HeaderRules struct {
	Remove []string          `json:"remove,omitempty"`
	Set    map[string]string `json:"set,omitempty"`
	Add    map[string]string `json:"add,omitempty"`
}

// IsZero reports whether there are no rules.
func (r HeaderRules) IsZero() bool { return len(r.Remove)+len(r.Set)+len(r.Add) == 0 }

func (r HeaderRules) equal(other HeaderRules) bool {
	return slices.Equal(r.Remove, other.Remove) && maps.Equal(r.Set, other.Set) && maps.Equal(r.Add, other.Add)
}

func (r HeaderRules) clone() HeaderRules {
	return HeaderRules{slices.Clone(r.Remove), maps.Clone(r.Set), maps.Clone(r.Add)}
}

// IsZero reports whether there are no rules.
func (h Headers) IsZero() bool {
	return len(h.HideCookies)+len(h.HideHeaders) == 0 && h.Request.IsZero() && h.Response.IsZero()
}

func (h *Headers) equal(other *Headers) bool {
	return slices.Equal(h.HideCookies, other.HideCookies) && slices.Equal(h.HideHeaders, other.HideHeaders) &&
		h.Request.equal(other.Request) && h.Response.equal(other.Response)
}

func (h *Headers) clone() Headers {
	return Headers{slices.Clone(h.HideCookies), slices.Clone(h.HideHeaders), h.Request.clone(), h.Response.clone()}
}

// size is about that of the JSON.
func (h *Headers) size() (n int) {
	list := func(texts []string) {
		for _, text := range texts {
			n += len(text) + 4
		}
	}
	fields := func(values map[string]string) {
		for name, value := range values {
			n += len(name) + len(value) + 8
		}
	}
	list(h.HideCookies)
	list(h.HideHeaders)
	for _, rules := range []HeaderRules{h.Request, h.Response} {
		list(rules.Remove)
		fields(rules.Set)
		fields(rules.Add)
	}
	return n
}

func (h *Headers) validate(wrong func(field, value, want string)) {
	for i, name := range h.HideCookies {
		if !headers.IsToken(strings.TrimSuffix(name, "*")) || strings.HasSuffix(name, "**") {
			wrong(fmt.Sprintf("headers.hideCookies[%d]", i), name, "must be a cookie's name, which may end in *")
		}
	}
	names := func(field string, list []string) {
		for i, name := range list {
			checkFieldName(fmt.Sprintf("%s[%d]", field, i), name, wrong)
		}
	}
	fields := func(field string, values map[string]string) {
		named := make(map[string]bool)
		for _, name := range slices.Sorted(maps.Keys(values)) {
			checkFieldName(field, name, wrong)
			if canonical := http.CanonicalHeaderKey(name); named[canonical] {
				wrong(field, name, "must not be there in two spellings: which comes first is not known")
			} else {
				named[canonical] = true
			}
			if value := values[name]; !headers.IsValue(value) {
				wrong(field+"."+name, value, "must be a header's value: no control bytes, no space around it")
			}
		}
	}
	names("headers.hideHeaders", h.HideHeaders)
	names("headers.request.remove", h.Request.Remove)
	fields("headers.request.set", h.Request.Set)
	fields("headers.request.add", h.Request.Add)
	names("headers.response.remove", h.Response.Remove)
	fields("headers.response.set", h.Response.Set)
	fields("headers.response.add", h.Response.Add)
}

// checkFieldName refuses what is no name, and fields that a message's shape or
// a handshake depends on.
func checkFieldName(field, name string, wrong func(field, value, want string)) {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !headers.IsToken(name):
		wrong(field, name, "must be a header's name")
	case framing[canonical] || headers.IsHopByHop(canonical) || strings.HasPrefix(canonical, "Sec-Websocket-"):
		wrong(field, name, "must not be a field that is between two connections' ends, or a handshake's")
	case canonical == "Via":
		wrong(field, name, "must not be Via: loops are found by it")
	}
}

func (r HeaderRules) apply(header http.Header) {
	for _, name := range r.Remove {
		header.Del(name)
	}
	for name, value := range r.Set {
		header.Set(name, value)
	}
	for name, value := range r.Add {
		header.Add(name, value)
	}
}

// clean removes all that there are rules for from a trailer, which some would
// let replace what is in the header.
func (r HeaderRules) clean(trailer http.Header) {
	for _, name := range r.Remove {
		trailer.Del(name)
	}
	for _, values := range []map[string]string{r.Set, r.Add} {
		for name := range values {
			trailer.Del(name)
		}
	}
}

// hidesCookie reports whether a cookie is the platform's own, or tells where the
// gateway has led the client.
func (r *Route) hidesCookie(name string) bool {
	switch {
	case r.Sticky.Cookie != "" && name == r.Sticky.Cookie:
		return true
	case len(r.Headers.HideCookies) == 0:
		return false
	}
	decoded := headers.DecodedCookieName(name)
	variable := headers.CookieVariable(decoded)
	return slices.ContainsFunc(r.Headers.HideCookies, func(p string) bool {
		return coversName(p, name) || coversName(p, decoded) || coversName(p, variable)
	})
}

// changesRequests reports whether outgoing may change anything.
func (r *Route) changesRequests() bool { return r.Sticky != (Sticky{}) || !r.Headers.IsZero() }

// outgoing changes a request's header and trailer to what the upstream gets.
func (r *Route) outgoing(header, trailer http.Header) {
	headers.DropCookies(header, r.hidesCookie)
	delete(trailer, "Cookie")
	for _, name := range r.Headers.HideHeaders {
		header.Del(name)
		trailer.Del(name)
	}
	r.Headers.Request.apply(header)
	r.Headers.Request.clean(trailer)
}

// incoming changes an upstream's response header to what the client gets.
func (p *Proxy) incoming(header http.Header, x *exchange, c *candidates) {
	route := x.match.options()
	defer func() { x.untyped = header["Content-Type"] == nil }()
	prefix, _ := x.match.split()
	for _, name := range route.Headers.HideHeaders {
		header.Del(name)
	}
	if route.Tenant {
		confine(header, prefix, x.script)
	}
	if route.RestorePath {
		x.restoreLocation(header, prefix, c.target)
	}
	if route.rewritesCookies() {
		route.rewriteCookies(header, prefix)
	}
	route.Headers.Response.apply(header)
	p.stick(header, x, c)
}

// cleanTrailer removes from a response's trailer what would not pass in its
// header, and what no trailer may say (RFC 9110 §6.5.1): whoever reads it may put
// it there. Named are the header's Connection fields.
func (r *Route) cleanTrailer(trailer http.Header, named []string) {
	for name := range trailer {
		if headers.IsHopByHop(name) || framing[name] || name == "Set-Cookie" || r.Tenant && (isForWholeHost(name) || name == "Service-Worker-Allowed") {
			delete(trailer, name)
		}
	}
	for name := range headers.Tokens(named) {
		trailer.Del(name)
	}
	for _, name := range r.Headers.HideHeaders {
		trailer.Del(name)
	}
	r.Headers.Response.clean(trailer)
}
