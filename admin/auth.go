package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// admit returns the holder of a request's token, or why the request is refused.
// It reads nothing but the header.
func (h *Handler) admit(r *http.Request) (holder string, wrong *problem) {
	if !h.knows(r.Host) {
		return "", &problem{Status: http.StatusForbidden, Text: fmt.Sprintf(
			"host %.64q is not a name of this API: ask by IP address or localhost, or let the server accept the name (gateway -admin-hosts, admin.Handler.Hosts)", r.Host)}
	}
	for _, origin := range r.Header["Origin"] {
		if !sameOrigin(origin, r.Host) {
			return "", &problem{Status: http.StatusForbidden, Text: fmt.Sprintf(
				"origin %.64q is not this server's: pages of other origins may not ask", origin)}
		}
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" {
			return "", &problem{Status: http.StatusForbidden, Text: fmt.Sprintf(
				"Sec-Fetch-Site %.64q must be same-origin or none: pages of other origins may not ask", site)}
		}
	}
	switch holder, ok := h.authorized(r); {
	case ok:
		return holder, nil
	case isCHP(canon.RawPath(r.URL)):
		return "", &problem{Status: http.StatusForbidden} // as configurable-http-proxy does
	case h.Token == "" && h.Tokens == nil:
		return "", &problem{Status: http.StatusUnauthorized, Text: "no token is configured, so that nobody may ask: set Token, Tokens, or Open"}
	}
	return "", &problem{Status: http.StatusUnauthorized, Text: "the token is missing or wrong: send Authorization: Bearer TOKEN"}
}

// knows reports whether requests may be for the name in a Host field. A page can
// point its own name at this server (DNS rebinding), but neither localhost nor an
// address. Requests of HTTP/1.0 without a host do not come from browsers.
func (h *Handler) knows(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	host = strings.TrimSuffix(host, ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	for _, name := range h.Hosts {
		if name == "*" || strings.EqualFold(name, host) {
			return true
		}
	}
	return false
}

// sameOrigin reports whether an Origin field names this server. The scheme is not
// compared, since a proxy before this server may terminate TLS.
func sameOrigin(origin, host string) bool {
	scheme, authority, ok := strings.Cut(origin, "://")
	return ok && (scheme == "http" || scheme == "https") && strings.EqualFold(authority, host)
}

// authorized reports whether a request has a token, and returns its holder. It
// compares the digest with those of all tokens, so that the time it takes tells
// nothing about a token, its length or its holder.
func (h *Handler) authorized(r *http.Request) (name string, ok bool) {
	if h.Token == "" && h.Tokens == nil {
		return "", h.Open
	}
	fields := r.Header["Authorization"]
	if len(fields) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	if !strings.EqualFold(scheme, "bearer") && !strings.EqualFold(scheme, "token") {
		return "", false
	}
	got := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
	is := func(token string) bool {
		want := sha256.Sum256([]byte(token))
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && token != ""
	}
	ok = is(h.Token)
	if h.Tokens != nil {
		for whose, token := range h.Tokens() {
			if is(token) {
				name, ok = whose, true
			}
		}
	}
	return name, ok
}
