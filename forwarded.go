package slipswitch

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/slipswitch/slipswitch/internal/canon"
	"github.com/slipswitch/slipswitch/internal/forwarded"
)

// A Client is the sender of a request and the address it used, as the Proxy read
// them when it admitted the request: from the connection and, if the peer is one
// of Proxy.TrustedProxies, from what that says. Tunnels, limits, SameOrigin,
// RestorePath and the Secure of cookies go by it. No change that Middleware makes
// to a header field changes it.
type Client struct {
	// Peer is the address at the other end of the connection. The zero Addr
	// means a Unix socket.
	Peer netip.Addr

	// Addr is the client's address. The zero Addr means that it is not known.
	Addr netip.Addr

	// Scheme is "http" or "https".
	Scheme string

	// Host is the host that the client asked for, in lower case, with a port if
	// it named one. Empty means that it named none.
	Host string

	// Port is the port that the client asked for: the one in Host, or what a
	// trusted proxy says, or the default of the scheme.
	Port string

	name string // Addr, an identifier (RFC 7239 §6.3), or "unknown"
	unix bool
}

// String returns Addr, or the identifier by which a trusted proxy hides it (RFC
// 7239 §6.3, "_" and up to 63 bytes), or "unknown".
func (c Client) String() string { return c.name }

// peer names the other end of the connection.
func (c *Client) peer() string {
	switch {
	case !c.Peer.IsValid() && c.unix:
		return "unix"
	case !c.Peer.IsValid():
		return "unknown"
	case c.Peer == c.Addr:
		return c.name
	}
	return c.Peer.String()
}

// ClientFrom returns the client of the request that has this context; false
// outside of a Proxy.
func ClientFrom(ctx context.Context) (Client, bool) {
	x := exchangeFrom(ctx)
	if x == nil {
		return Client{}, false
	}
	return x.client, true
}

// read reads the client of a request. It returns whether the peer is trusted and, if
// it has named any, the nodes from the client on.
func (c *Client) read(p *Proxy, r *http.Request) (nodes []forwarded.Node, trusted bool) {
	c.Peer = peerAddr(r.RemoteAddr)
	c.Scheme = "http"
	if r.TLS != nil {
		c.Scheme = "https"
	}
	if c.Peer.IsValid() {
		trusted = p.trusts(c.Peer)
	} else {
		c.unix = isUnix(r)
		trusted = c.unix && p.TrustUnix
	}
	var said forwarded.Said
	if trusted {
		said = forwarded.Read(r.Header, p.trusts)
		if said.Proto != "" {
			c.Scheme = said.Proto
		}
		c.Host = forwardedHost(said.Host)
	}
	if c.Host == "" {
		c.Host = forwardedHost(r.Host)
	}
	c.Port = explicitPort(c.Host)
	switch {
	case c.Port != "":
	case isPort(said.Port):
		c.Port = said.Port
	default:
		c.Port = usualPort(c.Scheme)
	}
	first := forwarded.Node{Addr: c.Peer}
	if len(said.Nodes) > 0 {
		first = said.Nodes[0]
	}
	c.Addr, c.name = first.Addr, first.String()
	return said.Nodes, trusted
}

// setForwarded sets all fields that tell upstreams who the client is and what it
// asked for, so that none contradicts another.
func (c *Client) setForwarded(r *http.Request, match Match, nodes []forwarded.Node) {
	values := make([]string, 0, 7) // one allocation for all
	set := func(name, value string) {
		values = append(values, value)
		r.Header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	chain := c.name
	if len(nodes) > 0 {
		if c.Peer.IsValid() {
			nodes = append(nodes, forwarded.Node{Addr: c.Peer})
		}
		chain = string(forwarded.AppendFor(nil, nodes))
	}
	set("X-Forwarded-For", chain)
	set("X-Real-Ip", c.name)
	set("X-Forwarded-Proto", c.Scheme)
	set("X-Forwarded-Port", c.Port)
	if c.Host != "" {
		set("X-Forwarded-Host", c.Host)
	} else {
		delete(r.Header, "X-Forwarded-Host")
	}
	if r.Header["Forwarded"] != nil {
		if len(nodes) == 0 {
			nodes = []forwarded.Node{{Addr: c.Peer}}
		}
		set("Forwarded", string(forwarded.Append(nil, nodes, c.Host, c.Scheme)))
	}
	before := ""
	if said := r.Header["X-Forwarded-Prefix"]; len(said) == 1 {
		if scan, err := canon.ScanPath(said[0]); err == nil && !scan.Dotted {
			before = strings.TrimRight(said[0], "/")
		}
	}
	if match.options().StripPath {
		prefix, _ := match.split()
		before += prefix
	}
	if before != "" {
		set("X-Forwarded-Prefix", before)
	} else {
		delete(r.Header, "X-Forwarded-Prefix")
	}
}

// setAliases sets the other fields for the scheme to the same value, if a trusted
// proxy has sent any.
func (c *Client) setAliases(header http.Header) {
	for _, name := range [...]string{"X-Scheme", "X-Url-Scheme", "X-Forwarded-Scheme", "X-Forwarded-Protocol"} {
		if header[name] != nil {
			header[name] = []string{c.Scheme}
		}
	}
	for _, name := range [...]string{"X-Forwarded-Ssl", "Front-End-Https"} {
		if header[name] == nil {
			continue
		}
		if header[name] = []string{"on"}; c.Scheme != "https" {
			header[name] = []string{"off"}
		}
	}
}

func (p *Proxy) trusts(peer netip.Addr) bool {
	for _, prefix := range p.TrustedProxies {
		if prefix.Contains(peer) {
			return true
		}
	}
	return false
}

// peerAddr returns the address of a request's peer, or the zero Addr if it has
// none, as on a Unix socket. Some handlers around the Proxy leave the port out.
func peerAddr(remote string) netip.Addr {
	peer, err := netip.ParseAddrPort(remote)
	addr := peer.Addr()
	if err != nil {
		if addr, err = netip.ParseAddr(remote); err != nil {
			return netip.Addr{}
		}
	}
	return addr.Unmap().WithZone("")
}

// isUnix reports whether a request came by a Unix socket. It does not look at
// RemoteAddr, which the peer chooses by binding its end.
func isUnix(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return local != nil && local.Network() == "unix"
}

// forwardedHost returns a valid Host header as it was matched, with its port; ""
// if it is not valid.
func forwardedHost(hostport string) string {
	name, plain, err := canon.ScanHost(hostport)
	if err != nil || name == "" {
		return ""
	}
	port := explicitPort(hostport)
	if plain || port != "" && canon.IsPlainHost(name) && len(hostport) == len(name)+len(":")+len(port) {
		return hostport
	}
	name = string(canon.AppendHost(nil, name))
	if port != "" {
		return net.JoinHostPort(name, port)
	}
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// explicitPort returns the port that a valid host has; "" if none.
func explicitPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		return host[i+1:]
	}
	return ""
}

func usualPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// isOrigin reports whether a handshake with these Origin fields is from a page of the
// host that the client asked for, or from no page. Origins are compared as in RFC
// 6454, except for the scheme: TLS may end at a proxy that is not trusted, so a page
// may be https though the client seems to use http.
func (c *Client) isOrigin(fields []string) bool {
	if fields == nil {
		return true
	}
	if len(fields) != 1 {
		return false
	}
	scheme, hostport, ok := strings.Cut(fields[0], "://")
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "https" && (scheme != "http" || c.Scheme == "https") {
		return false
	}
	host, _, err := canon.ScanHost(hostport)
	own, _, other := canon.ScanHost(c.Host)
	if err != nil || other != nil || host == "" || string(canon.AppendHost(nil, host)) != string(canon.AppendHost(nil, own)) {
		return false
	}
	usual := usualPort(scheme)
	port := cmp.Or(explicitPort(hostport), usual)
	if named := explicitPort(c.Host); named != "" {
		return samePort(port, named)
	}
	return samePort(port, usual) || samePort(port, c.Port)
}

// samePort compares numbers: 0443 is 443.
func samePort(a, b string) bool {
	m, err := strconv.Atoi(a)
	n, other := strconv.Atoi(b)
	return err == nil && other == nil && m == n
}
