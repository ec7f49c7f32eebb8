// Package caddyslipswitch is a Caddy module. Its routes change while Caddy runs,
// by REST or by Caddy's configuration, and neither such a change nor a reload of
// Caddy ends a socket.
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
// Requests without a route go to the next handler. Errors of forwarding go to
// Caddy's handle_errors. The path of a route may have a host before it. The block
// of a route has the fields of a slipswitch.Route by their JSON names, spelt as
// in Caddy (strip_path) or as in JSON (stripPath). A field without a value is
// true, and a field that is an object takes JSON.
//
// Further routes can be put by REST, under Caddy's own admin endpoint:
//
//	curl -X PUT -H 'Content-Type: application/json' -d '{"path":"/ide-8","upstreams":["http://10.0.0.8:8080"]}' \
//		'http://localhost:2019/slipswitch/default/v1/route?path=/ide-8'
//
// The API is that of package admin, under localhost or an IP address. Its routes
// are kept in memory across reloads, and with data across restarts, too.
//
// # Reloads
//
// Handlers of one name share routes put by REST, and sockets, and both survive a
// reload. The routes of a configuration come into force at once when Caddy starts
// it. A configuration that Caddy refuses changes nothing. When no handler of a
// name is left, or Caddy exits, its sockets are closed with 1012 within ten
// seconds.
package caddyslipswitch
