package slipswitch

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// An Owner is the source of a route, and limits its routes. The zero Owner has no
// name and no limits.
//
// The first owner of a key keeps it: a route that another owner puts there is
// shadowed until the first one's route is deleted.
type Owner struct {
	Name string

	// Hosts are the hosts that its routes may have, as in Route.Host. A wildcard
	// covers the hosts that it matches, and narrower wildcards. Nil means all.
	Hosts []string

	// Paths are the paths that its routes may have, with all below them. Nil means
	// all.
	Paths []string

	// Upstreams are the addresses that its routes may lead to: "host", "host:port",
	// or an address range such as "10.0.0.0/8". They do not limit Proxy.Resolver.
	// Nil means all.
	Upstreams []string
}

// admit calls wrong for each field of a valid route that is outside the owner's
// limits.
func (o *Owner) admit(k Key, targets []target, wrong func(field, value, want string)) {
	if o.Hosts != nil && !slices.ContainsFunc(o.Hosts, func(limit string) bool { return coversHost(limit, k.Host) }) {
		wrong("host", k.Host, o.limit(o.Hosts))
	}
	if o.Paths != nil && !slices.ContainsFunc(o.Paths, func(limit string) bool { return coversPath(limit, k.Path) }) {
		wrong("path", k.Path, o.limit(o.Paths))
	}
	for i, t := range targets {
		if o.Upstreams != nil && !slices.ContainsFunc(o.Upstreams, func(limit string) bool { return coversAddress(limit, t.addr) }) {
			wrong(fmt.Sprintf("upstreams[%d]", i), t.String(), o.limit(o.Upstreams))
		}
	}
}

func (o *Owner) limit(to []string) string {
	return fmt.Sprintf("must be within what owner %q may route: %s", o.Name, strings.Join(to, ", "))
}

func coversHost(limit, host string) bool {
	limit, err := canon.HostPattern(limit)
	switch {
	case err != nil:
		return false
	case limit == "" || limit == host:
		return true
	case strings.HasPrefix(limit, "**."):
		return strings.HasSuffix(host, limit[2:])
	case strings.HasPrefix(limit, "*."):
		label, ok := strings.CutSuffix(host, limit[1:])
		return ok && label != "**" && !strings.Contains(label, ".")
	}
	return false
}

func coversPath(limit, path string) bool {
	above, _, err := Key{Path: limit}.canonical()
	if err != nil {
		return false
	}
	below, _, err := Key{Path: path}.canonical()
	return err == nil && strings.HasPrefix(below, above)
}

func coversAddress(limit, addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if prefix, err := netip.ParsePrefix(limit); err == nil {
		ip, err := netip.ParseAddr(host)
		return err == nil && prefix.Contains(ip.Unmap())
	}
	return strings.EqualFold(limit, addr) || strings.EqualFold(limit, host)
}

// The chain of leaves at one key: the one that stands, then those that it
// shadows, at most one of each owner. All methods may be called on nil.

// of reports whether the chain has a leaf of owner.
func (l *leaf) of(owner string) bool {
	for ; l != nil; l = l.shadowed {
		if l.owner() == owner {
			return true
		}
	}
	return false
}

// with returns the chain with put in the place of its owner's leaf, or at the
// end. It modifies put.
func (l *leaf) with(put *leaf) *leaf {
	switch {
	case l == nil:
		return put
	case l.owner() == put.owner():
		put.shadowed = l.shadowed
		if put.sameRoute(l) {
			return l
		}
		return put
	}
	copied := *l
	copied.shadowed = l.shadowed.with(put)
	return &copied
}

// without returns the chain without owner's leaf.
func (l *leaf) without(owner string) *leaf {
	if l.owner() == owner {
		return l.shadowed
	}
	copied := *l
	copied.shadowed = l.shadowed.without(owner)
	return &copied
}

// same reports whether both chains hold equal routes of the same owners.
func (l *leaf) same(other *leaf) bool {
	for ; l != nil && other != nil; l, other = l.shadowed, other.shadowed {
		if l == other {
			return true
		}
		if !l.sameRoute(other) {
			return false
		}
	}
	return l == other
}

// takePlace gives the whole chain its place. Parts of the chain may be
// published, before what is new or after it: those have the place already,
// and must not be written.
func (l *leaf) takePlace(p *place) {
	for ; l != nil; l = l.shadowed {
		if l.place != p {
			l.place = p
		}
	}
}
