package slipswitch

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"strings"

	"github.com/slipswitch/slipswitch/internal/balance"
	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/headers"
)

// Sticky keeps a client at the upstream of its first request by a cookie, as long
// as the route lists that upstream and it can be reached. The cookie's value is a
// keyed hash of the upstream's URL. A forged cookie is ignored, and so is the cookie
// of an upstream that the route no longer lists. The zero Sticky sets no cookie.
type Sticky struct {
	// Cookie is the cookie's name. It is required if any field is set. The cookie
	// is not forwarded.
	Cookie string `json:"cookie"`

	// Path is the cookie's path. Empty means the route's, so that routes do not
	// share the cookie.
	Path string `json:"path,omitempty"`

	// SameSite is "lax", "strict" or "none". Empty means lax.
	SameSite string `json:"sameSite,omitempty"`
}

func (s Sticky) validate(wrong func(field, value, want string)) {
	if s == (Sticky{}) {
		return
	}
	if !headers.IsToken(s.Cookie) {
		wrong("sticky.cookie", s.Cookie, "must be the name of a cookie, since sticky is set")
	}
	if s.Path != "" && (s.Path[0] != '/' || !validCookiePath(s.Path)) {
		wrong("sticky.path", s.Path, "must begin with / and have no ;")
	}
	if sameSite[s.SameSite] == 0 {
		wrong("sticky.sameSite", s.SameSite, "must be lax, strict or none")
	}
}

var sameSite = map[string]http.SameSite{
	"": http.SameSiteLaxMode, "lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode, "none": http.SameSiteNoneMode,
}

func validCookiePath(path string) bool {
	_, err := canon.ScanPath(path)
	return err == nil && !strings.Contains(path, ";")
}

// stickyKey returns Proxy.StickyKey, or a random key.
func (p *Proxy) stickyKey() []byte {
	if len(p.StickyKey) > 0 {
		return p.StickyKey
	}
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

// tag returns the cookie's value for a target.
func (p *Proxy) tag(m Match, t *target) string {
	return balance.Tag(p.sticky, m.leaf.key, t.String()+t.path)
}

// stick sets the cookie, unless the client has sent the one of this target.
func (p *Proxy) stick(header http.Header, x *exchange, c *candidates) {
	s := x.match.options().Sticky
	if s == (Sticky{}) || len(c.targets) == 1 || c.sticky >= 0 && &c.targets[c.sticky] == c.target {
		return
	}
	prefix, _ := x.match.split()
	cookie := &http.Cookie{
		Name: s.Cookie, Value: p.tag(x.match, c.target),
		Path:     cmp.Or(s.Path, headers.CookiePath(prefix)),
		SameSite: sameSite[s.SameSite],
		HttpOnly: true,
		Secure:   s.SameSite == "none" || x.client.Scheme == "https",
	}
	header["Set-Cookie"] = append(header["Set-Cookie"], cookie.String())
}
