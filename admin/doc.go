// Package admin is an http.Handler to look at a slipswitch.Router and to change
// it over HTTP, by an API of its own and by that of configurable-http-proxy.
//
//	GET    /v1/routes    lists routes, by pages
//	GET    /v1/route     one route
//	PUT    /v1/route     adds it, or replaces it
//	DELETE /v1/route     deletes it
//	POST   /v1/batch     many changes, all or nothing
//	POST   /v1/confirm   makes the deletions that a store's brake holds back
//	GET    /v1/tunnels   lists open tunnels, by pages
//	DELETE /v1/tunnels   closes them
//	GET    /v1/upstreams lists the upstreams of tunnels, and how busy they are
//	GET    /v1/closes    lists the last close reports, and bursts of closes
//	GET    /v1/status    version, how much there is of what, how often which limit was hit, whether it is ready
//	*      /api/routes   the API of configurable-http-proxy
//	GET    /livez        200: the program runs
//	GET    /readyz       200: send it traffic; 503: do not, it drains or is short of descriptors
//
// A query parameter that is unknown, given twice or not a value that it can have
// is answered with 400, and so is one without a value, but for host, owner, after
// and reason.
//
// # Routes
//
// /v1/route takes the address of a route as query parameters: host (left out
// for any host), path, and exact=true for an exact route:
//
//	curl -X PUT -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
//	  -d '{"host":"ide.example.com","path":"/ide-7","upstreams":["http://10.0.0.7:8080"]}' \
//	  'http://127.0.0.1:8001/v1/route?host=ide.example.com&path=/ide-7'
//
// The path is percent-encoded as in the route, and then, like any value, once
// more for the query: the path /a%2Fb is path=/a%252Fb. The body's host, path
// and exact must be the address's; it may leave all three of them out.
//
// The answer shows the route and what is known of it, with its version as ETag:
//
//	{"route":{…}, "owner":"", "shadowed":false, "version":42,
//	 "lastActive":"2026-01-02T03:04:05.678Z", "tunnels":3}
//
// Where this gateway passes over some of several upstreams, it says which and
// why: "ejected":[{"upstream":"http://10.0.0.7:8080", "since":"…", "error":"status 503"}].
//
// PUT answers 201 for a new route, else 200; DELETE 204, or 404 if there was
// none. With If-Match (or If-None-Match: *) either changes only what has this
// version (what is not there), else the answer is 412. All changes are those of
// Handler.Owner: a route whose key another owner has is put as shadowed, which the
// answer says ("shadowed":true, "shadowedBy":"team-a"), and is not deleted but
// answered with 409. GET shows the route that stands or, with
// owner=, the one that this owner has there.
//
// /v1/routes answers {"version":…, "routes":[…], "next":"…"}, in the order of
// host, then path. For the next page pass next as after, until there is none.
// Each page reads the table of its moment, and a route that stands all the
// while is on exactly one page. Parameters: limit (100; at most 1000), after,
// owner, host (empty: routes for any host), path (it and what is below),
// label=name=value or label=name (repeated: all of them), inactive_since (an
// ISO 8601 time: routes without activity from then on), and upstream (a URL
// without path or host:port, as /v1/tunnels has it: routes that list it).
//
// /v1/batch takes changes in their order, and with replace also deletes all
// other routes of the owner:
//
//	{"changes":[{"put":{…}}, {"delete":{"host":"ide.example.com","path":"/ide-6"}}], "replace":true}
//
// With a store, all of these answer once the store has the change and this
// gateway routes it; with wait=all, once all gateways that share it do.
//
// Either all is done, in one swap, and the answer is {"version":43}, with
// "shadowed":[{"key":{…}, "by":"team-a"}] if another owner's routes stand where
// some were put; or nothing,
// and the answer is 400 with all that is invalid. If-Match with a version
// changes only the table of this version. What is invalid is told as
//
//	{"status":400, "error":"…", "invalid":[{"index":0, "key":{…}, "field":"path",
//	 "value":"ide-7", "want":"must begin with /"}]}
//
// In a store with leases, etcd that is, a route can last only for as long as its
// workspace does: PUT /v1/route with ttl=30s is to be asked again within that
// time, and does nothing then but renew it; if it is not, the route is deleted.
// A PUT without ttl makes it last. Other stores answer 501.
//
// If the store's brake holds deletions of a request back, the answer is 202
// with the reason: all else is done. /v1/status tells under stores, as braked,
// how many routes of which owner are held, why, and which are the first of them.
// POST /v1/confirm, without parameters, makes all deletions that are held now,
// on all gateways that share the store, and is answered with 204; 409 without a
// store.
//
// # Tunnels
//
// /v1/tunnels takes limit, after, host and path as /v1/routes does, id, upstream
// (a URL or host:port), client and peer (an address, unix, unknown or an
// identifier such as _hidden); and sort, which is opened, bytes, lastData or
// lastActive, with - before it for the greatest first: of a sorted list there is
// only one page. The peer of a tunnel is the other end of its connection: the
// client, or the proxy before the gateway.
//
// DELETE takes the same filters, of which there must be one (path=/ means all),
// code and reason for the WebSocket Close frame (without them 1001 and the why of
// the close report), and window, a time such as 30s over which the closes are
// spread. It answers 202 with how many tunnels it closes: {"closing":3}. See
// Tunnel.Close and, with window, Proxy.Drain.
//
// /v1/upstreams answers {"upstreams":[{"upstream":"http://10.0.0.7:8080", "tunnels":3,
// "lastActive":"…"}], "next":"…"}, in the order of their URLs: those that have tunnels, or had
// one of the last 1000 that ended, and when these last were active. Plain
// requests count for routes: /v1/routes?upstream=10.0.0.7:8080 tells when those
// that lead there were used. Parameters: limit, after, upstream.
//
// /v1/closes answers {"closes":[…], "bursts":[…]}, the newest first: of the last
// 1000 reports at most limit, and the last 100 bursts. Parameters: limit, host,
// path, upstream, client, peer, by, why; they do not concern the bursts.
//
// # configurable-http-proxy
//
// What drives configurable-http-proxy drives /api/routes. It shows and changes
// the prefix routes of the owner "chp", for any host. (With
// Handler.CHPHostRouting the first segment of a path is the host.) It shows the
// shadowed ones too, since a client that cannot read back what it wrote would retry
// forever; only /v1/routes tells the difference. Paths are shown unescaped, and %2F in one
// is a slash. JSON keys other than target are kept in the route's Meta and come
// back.
//
// # Who may ask
//
// Every request but those for /livez and /readyz must name the token, or one of
// Handler.Tokens, in "Authorization: Bearer T" or "Authorization: token T". It
// is checked before anything else of the request is read. Whoever has a token
// may make the gateway send requests to any address: serve a Handler on
// 127.0.0.1 or another address that only its users reach, never on a host that
// serves workspaces. Handler.Probes answers /livez and /readyz alone, for an
// address that others reach.
//
// Handler.Logger is told of each change, and of tunnels that were closed: the
// request, the holder of the token and the address that it came from, what was
// put and deleted, and the version that the table has since, or the error. A
// close report whose change has this origin leads there.
//
// Web pages are kept out: a request must be for an IP address, localhost or one
// of Handler.Hosts (else a page could point its own name at this server), and
// must not come from a page of another origin, which its Origin and
// Sec-Fetch-Site headers tell.
package admin
