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
// A query parameter that is unknown, repeated or invalid is answered with 400, and
// so is an empty one, except host, owner, after and reason.
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
// more for the query: the path /a%2Fb is path=/a%252Fb. Host, path and exact in
// the body must be equal to those in the query. The body may leave out all three.
//
// The answer has the route and its state, with its version as ETag:
//
//	{"route":{…}, "owner":"", "shadowed":false, "version":42,
//	 "lastActive":"2026-01-02T03:04:05.678Z", "tunnels":3}
//
// If this gateway has ejected some of several upstreams, it says which and why:
// "ejected":[{"upstream":"http://10.0.0.7:8080", "since":"…", "error":"status 503"}].
//
// PUT answers 201 for a new route, else 200. DELETE answers 204, or 404 if there
// was no route. With If-Match they change only a route of this version, with
// If-None-Match: * only if there is none; else they answer 412. All changes are
// those of Handler.Owner. If another owner has the key, PUT puts a shadowed route
// ("shadowed":true, "shadowedBy":"team-a"), and DELETE answers 409. GET shows the
// route that has effect or, with owner=, the route of this owner.
//
// /v1/routes answers {"version":…, "routes":[…], "next":"…"}, in the order of
// host, then path. For the next page pass next as after, until there is no next.
// Each page is of the current table. A route that is there all the time is on
// exactly one page. Parameters: limit (100; at most 1000), after,
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
// A batch is applied as a whole, in one swap, or not at all. The answer is
// {"version":43}, with "shadowed":[{"key":{…}, "by":"team-a"}] for routes whose key
// another owner has. If any change is invalid, the answer is 400 and lists all that
// are. With If-Match, the batch is applied only to the table of this version. An
// invalid change is listed as
//
//	{"status":400, "error":"…", "invalid":[{"index":0, "key":{…}, "field":"path",
//	 "value":"ide-7", "want":"must begin with /"}]}
//
// In a store with leases, which is etcd, a route can end with its workspace. PUT
// /v1/route with ttl=30s puts a route that is deleted unless the same PUT renews it
// within that time. A PUT without ttl puts a route that stays. Other stores answer
// 501.
//
// If the store's brake holds back deletions of a request, the answer is 202 with
// the reason; all other changes are made. /v1/status shows under stores, as
// braked, the number of routes of each owner that are held, why, and the first of
// them. POST /v1/confirm, without parameters, makes all deletions that are held
// now, on all gateways that share the store. It answers 204, or 409 without a
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
// one of the last 1000 that ended, and when these were last active. Plain
// requests count for routes: see /v1/routes?upstream=10.0.0.7:8080. Parameters: limit, after, upstream.
//
// /v1/closes answers {"closes":[…], "bursts":[…]}, the newest first: of the last
// 1000 reports at most limit, and the last 100 bursts. Each report is a
// slipswitch.CloseReport, whose by, how and why say which side closed the socket,
// how and why; its tunnel is the id that /v1/tunnels had. Parameters: limit, host,
// path, upstream, client, peer, by, why. They do not select bursts.
//
// # configurable-http-proxy
//
// A client of configurable-http-proxy, such as JupyterHub, can use /api/routes. It
// shows and changes the prefix routes of the owner "chp", for any host. (With
// Handler.CHPHostRouting the first segment of a path is the host.) It shows the
// shadowed ones too, since a client that cannot read back what it wrote would retry
// forever; only /v1/routes tells the difference. Paths are shown unescaped, and %2F in one
// is a slash. JSON keys other than target are kept in the route's Meta and come
// back.
//
// # Access
//
// Every request except those for /livez and /readyz must have the token, or one of
// Handler.Tokens, as "Authorization: Bearer T" or "Authorization: token T". The
// token is checked before anything else of the request is read. The holder of a
// token can make the gateway send requests to any address: serve a Handler on
// 127.0.0.1 or another address that only its users reach, never on a host that
// serves workspaces. Handler.Probes answers only /livez and /readyz, for an address
// that others reach.
//
// Handler.Logger gets each change of routes and each closing of tunnels: the
// request, the token's holder, the address, the routes that were put and deleted,
// and the table's version after it, or the error. The Change of a close report has
// the same origin as the log.
//
// Web pages cannot use the API. A request must be for an IP address, localhost or
// one of Handler.Hosts, else a page could point its own name at this server. It
// must not come from a page of another origin, by its Origin and Sec-Fetch-Site.
package admin
