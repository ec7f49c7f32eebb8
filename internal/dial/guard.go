package dial

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A guard looks at the address that a guarded name has in the end, each time when
// it is connected to: a name that was harmless when it was looked up first may be
// another one's the next time.
//
// Whoever keeps connections must keep those to guarded endpoints apart, or one that
// was opened to the same name without a guard would be taken without a look.
type guard struct {
	mu    sync.Mutex
	own   []netip.Addr // this machine's
	until time.Time    // when they are to be read again
}

const ownExpiry = 5 * time.Second

// check refuses an address, and says why.
func (d *Dialer) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if d.Allowed != nil {
		if !slices.ContainsFunc(d.Allowed, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			return fmt.Errorf("a captured name leads to %s, which Proxy.TemplateAddresses does not allow", addr)
		}
		return nil
	}
	own, err := d.guard.ours()
	if err != nil {
		return err
	}
	for _, a := range [...]netip.Addr{addr, embedded(addr)} {
		if !a.IsGlobalUnicast() || slices.Contains(own, a) || slices.Contains(metadata, a) {
			return fmt.Errorf("a captured name leads to %s, which is loopback, link-local, no host's, a cloud's metadata, or the gateway's own", addr)
		}
	}
	return nil
}

// embedded returns the IPv4 address that a translated one leads to (NAT64's
// well-known prefix of RFC 6052, 6to4, IPv4-compatible), or addr itself.
func embedded(addr netip.Addr) netip.Addr {
	b := addr.As16()
	switch {
	case nat64.Contains(addr), compatible.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:]))
	}
	return addr
}

// metadata is where clouds tell a machine its secrets, if not at a link-local address.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("100.96.0.96"),     // Volcengine
	netip.MustParseAddr("192.0.0.192"),     // Oracle
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	compatible = netip.MustParsePrefix("::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
)

// ours returns the addresses of this machine's interfaces.
func (g *guard) ours() ([]netip.Addr, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); now.After(g.until) {
		nets, err := net.InterfaceAddrs()
		if err != nil {
			return nil, err
		}
		g.own, g.until = nil, now.Add(ownExpiry)
		for _, n := range nets {
			if prefix, err := netip.ParsePrefix(n.String()); err == nil {
				g.own = append(g.own, prefix.Addr().Unmap())
			}
		}
	}
	return g.own, nil
}

// control is a net.Dialer's: it is called between look-up and connect.
func (d *Dialer) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return d.check(addr.Addr())
}

// connectGuarded connects by Connect, and lets no connection through whose other end
// is forbidden. Nothing has been sent by then.
func (d *Dialer) connectGuarded(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.Connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if remote, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil { // of whatever type
		if err := d.check(remote.Addr()); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}
