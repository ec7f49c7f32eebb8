// Package caddyslipswitch is a Caddy module: routes that change while Caddy
// runs, by REST or by its configuration, and sockets that neither such a change
// nor a reload of Caddy ends.
//
//	ide.example.com {
//		slipswitch {
//			route /ide-7 10.0.0.7:8080 {
//				strip_path
//				idle_timeout 2m
//			}
//			trusted_proxies private_ranges
//			data /var/lib/caddy/routes.db
//		}
//		respond "no such workspace" 404
//	}
//
// What has no route goes to the next handler. Caddy's handle_errors gets what
// cannot be forwarded. In a route's block stand the fields of a slipswitch.Route
// by their JSON names, in Caddy's spelling or in that of JSON, with true for no
// value, and JSON for what is an object; the path may have a host in front.
//
// Beside the routes of the configuration there are those put by REST, under
// Caddy's own admin endpoint:
//
//	curl -X PUT -H 'Content-Type: application/json' -d '{"path":"/ide-8","upstreams":["http://10.0.0.8:8080"]}' \
//		'http://localhost:2019/slipswitch/default/v1/route?path=/ide-8'
//
// It is package admin's API, asked by localhost or an IP address. These routes
// are kept in memory over reloads, and with data over restarts, too.
//
// # Reloads
//
// All that handlers of one name have, routes by REST and sockets, outlives a
// reload. A configuration's routes come into force at once when Caddy starts it,
// and one that Caddy refuses changes nothing. When no handler of a name is left,
// or Caddy exits, its sockets are closed with 1012 within ten seconds.
package caddyslipswitch
