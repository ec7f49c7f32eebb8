package caddyslipswitch

import (
	"encoding/json"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/slipswitch/slipswitch"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("slipswitch", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		handler := new(Handler)
		return handler, handler.UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("slipswitch", httpcaddyfile.Before, "respond")
}

// UnmarshalCaddyfile reads
//
//	slipswitch [<matcher>] {
//		route [<host>]/<path> <upstreams…> {
//			<field> [<value…>]
//		}
//		trusted_proxies <ranges…>
//		data <file>
//		name <name>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch d.Val() {
		case "route":
			route, err := readRoute(d)
			if err != nil {
				return err
			}
			h.Routes = append(h.Routes, route)
		case "trusted_proxies":
			ranges := d.RemainingArgs()
			if len(ranges) == 0 {
				return d.ArgErr()
			}
			for _, r := range ranges {
				if r == "private_ranges" {
					h.TrustedProxies = append(h.TrustedProxies, caddyhttp.PrivateRangesCIDR()...)
				} else {
					h.TrustedProxies = append(h.TrustedProxies, r)
				}
			}
		case "data":
			if !d.AllArgs(&h.Data) {
				return d.ArgErr()
			}
		case "name":
			if !d.AllArgs(&h.Name) {
				return d.ArgErr()
			}
		default:
			return d.Errf("unknown option %q: there are route, trusted_proxies, data and name", d.Val())
		}
	}
	return nil
}

// readRoute reads a route by way of its JSON, which defines the fields.
func readRoute(d *caddyfile.Dispenser) (route slipswitch.Route, err error) {
	if !d.NextArg() {
		return route, d.ArgErr()
	}
	host, path, ok := strings.Cut(d.Val(), "/")
	if !ok {
		return route, d.Errf("route %q must be a path, or a host and a path: ide.example.com/ide-7", d.Val())
	}
	fields := map[string]any{"host": host, "path": "/" + path}
	var upstreams []string
	for _, upstream := range d.RemainingArgs() {
		if !strings.Contains(upstream, "://") && !strings.HasPrefix(upstream, "unix:") {
			upstream = "http://" + upstream // as in reverse_proxy
		}
		upstreams = append(upstreams, upstream)
	}
	if upstreams != nil {
		fields["upstreams"] = upstreams
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := jsonName(d.Val())
		if _, twice := fields[name]; twice {
			return route, d.Errf("%s is there twice", d.Val())
		}
		fields[name] = value(name, d.RemainingArgs())
	}
	text, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(text, &route)
	}
	if err != nil {
		return route, d.Errf("route %s/%s: %v", host, path, err)
	}
	return route, nil
}

// jsonName turns idle_timeout into idleTimeout.
func jsonName(name string) string {
	first, rest, _ := strings.Cut(name, "_")
	for word := range strings.SplitSeq(rest, "_") {
		if word != "" {
			first += strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return first
}

// value returns the JSON for the arguments of a field.
func value(name string, args []string) any {
	switch {
	case name == "protocols" || len(args) > 1:
		return args
	case len(args) == 0:
		return true
	case json.Valid([]byte(args[0])):
		return json.RawMessage(args[0])
	}
	return args[0]
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
