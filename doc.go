// Package slipswitch routes HTTP and WebSocket traffic inside a Go server, and
// never reloads: routes change all day, and open connections stay.
//
// A [Router] holds an immutable [Table] of routes. A change builds the next table
// and swaps one pointer; each request reads one table. A [Proxy] is an
// http.Handler that looks up each request, cleans it and forwards it to an
// upstream of its [Route]. An upgraded connection becomes a [Tunnel], which
// belongs to no table: it lives until its client, its upstream or a policy ends
// it, and its [CloseReport] says which, how and why.
//
//	var router slipswitch.Router
//	router.Update(func(tx *slipswitch.Txn) error {
//		tx.Put(slipswitch.Route{Host: "ide.example.com", Path: "/ide-7", StripPath: true,
//			Upstreams: slipswitch.To("http://10.0.0.7:8080")})
//		return nil
//	})
//	proxy := &slipswitch.Proxy{Router: &router}
//	http.ListenAndServe(":8080", proxy)
//
// Package admin is a REST API for routes, open tunnels and close reports, as an
// http.Handler. Package store and the packages below it keep routes in files, in a
// database or in etcd.
//
// # Precedence of routes
//
// A route is for a host and a path. Its host is
//
//	ide.example.com     that name
//	*.example.com       exactly one label before it
//	**.example.com      one or more labels before it; the longest pattern wins
//	(empty)             any host
//
// and these levels are tried in this order. At each level the longest path wins;
// an exact path wins over a prefix of the same length. If a level has no route for
// the path, the next one is tried.
//
// A prefix matches whole segments: /a/ide-1 matches /a/ide-1, /a/ide-1/ and
// /a/ide-1/x, never /a/ide-12. Paths are compared in one canonical form: split
// at the slashes, each segment percent-decoded once, dot segments resolved (RFC
// 3986 §5.2.4). So %61 is a, and @ is %40; %2F stays inside its segment. The path
// is forwarded in the client's own spelling, unless it had dot segments, and the
// query as it came.
//
// Hosts are compared without port and trailing dot, in ASCII lower case. A
// request with an invalid host or path is answered with 400.
//
// # Headers
//
// Before Middleware runs, a request loses its hop-by-hop fields and those that
// Connection names, and fields whose name has anything but letters, digits and
// hyphens. Unless the peer is one of Proxy.TrustedProxies, it also loses
// Forwarded, X-Forwarded-*, X-Real-* and X-Original-*, and fields such as
// True-Client-IP, CF-Connecting-IP, X-Scheme, X-Rewrite-URL and Client-Cert, from
// which servers read the client's address, the scheme, the host, the path or the
// client's certificate. Then X-Forwarded-For, -Host, -Proto and -Port, X-Real-IP
// and, if a prefix is stripped, X-Forwarded-Prefix are set. Forwarded is set if a
// trusted peer has sent one. Host is passed on. Plain requests and upgrades are
// treated alike.
//
// The client's address, and the scheme, host and port that it asked for, are read
// once, before Middleware: see [Client].
//
// # HTTP/1 connections
//
// A client that is answered before it has sent its whole request, by the Proxy,
// Middleware or the upstream, can read the answer while it goes on sending: the
// connection is closed in stages (RFC 9112 §9.6). The answer has Connection:
// close; then the Proxy hijacks the connection, closes its half, and discards what
// comes until the client closes, up to 256 MiB, for at most 30 s, and 5 s after
// the last byte. So http.Server's ConnState sees these connections as hijacked. A
// body of up to 256 KiB that came with its header is read instead, and the
// connection is reused.
//
// A request with both Content-Length and Transfer-Encoding, or with HTTP/1.0 and
// Transfer-Encoding, must be the last of its connection (RFC 9112 §6.1).
// http.Server deletes these fields before a handler sees them, so the Proxy
// closes the connection after each request that may have had them: after every
// chunked one, and every one of HTTP/1.0. Other connections are kept.
//
// http.Server itself answers requests that it cannot parse: an empty line before a
// request line is 400, though RFC 9112 §2.2 would skip it, and a transfer coding
// other than chunked is 501.
//
// # Guarantees
//
//  1. A route change never touches a tunnel, or a request in flight, that is
//     not on that route.
//  2. Batches are atomic: a request sees all of a batch or none of it, and a
//     batch with an invalid route changes nothing.
//  3. Lookups never lock, and never allocate except for paths with dot segments.
//  4. Not one byte is lost, duplicated or reordered in a tunnel.
//  5. Every tunnel that was opened yields exactly one close report.
//  6. A tunnel is closed by a route change only if its route is deleted, or no
//     longer lists its upstream, and the route's ClosePolicy says so.
//  7. Descriptors do not run out on listeners wrapped by Proxy.Listen.
//
// The README names the test of each.
package slipswitch
