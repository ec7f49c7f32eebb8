package admin_test

import (
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

// A parameter that is misspelt, or empty as a variable that a script has not
// set, is refused by every endpoint: it must not mean "all", or "none".
func TestParametersRefused(t *testing.T) {
	g := startGateway(t, new(admin.Handler))
	put(t, g.router, "", slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(g.echo)})
	conn := g.dial("/a")
	defer conn.CloseNow()
	alone := serve(t, new(admin.Handler)) // without a Proxy, and so without tunnels
	for endpoint, queries := range map[string][]string{
		"GET /v1/routes": {
			"limit=", "limit=0", "limit=1001", "limit=x", "after=x", "host=a/b", "path=a", "path=", "label=", "inactive_since=", "inactive_since=x",
			"upstream=", "upstream=http://", "upstream=http://10.0.0.7:80/", "upstream=10.0.0.7:80/a", "owners=a", "Host=a", "limit=1&limit=1", "%zz",
		},
		"GET /v1/route":      {"", "path=", "path=a", "path=/a&exact=", "path=/a&exact=x", "path=/a&owner=a&owner=b", "path=/a&x=y"},
		"PUT /v1/route":      {"", "path=/a&wait=", "path=/a&wait=some", "path=/a&ttl=", "path=/a&ttl=x", "path=/a&exact=", "path=/a&owner=a"},
		"DELETE /v1/route":   {"", "path=", "path=/a&wait=", "path=/a&wait=some", "path=/a&exact=", "path=/a&owner=a"},
		"POST /v1/batch":     {"wait=", "wait=some", "replace=true"},
		"POST /v1/confirm":   {"owner=a"},
		"GET /v1/tunnels":    {"limit=x", "after=x", "sort=", "sort=-", "sort=age", "id=", "id=0", "id=x", "host=a/b", "path=", "client=", "peer=", "peer=me", "client=me", "client=10.0.0.7:80", "upstream=", "by=client"},
		"DELETE /v1/tunnels": {"", "path=", "client=", "path=/&client=", "path=/&peer=", "path=/&upstream=", "path=/&id=", "path=/&code=", "path=/&code=99", "path=/&code=1005", "path=/&code=1006", "path=/&code=1015", "path=/&code=2000", "path=/&code=5000", "path=/&code=x", "path=/&window=", "path=/&window=30", "path=/&window=-1s", "path=/&reason=" + strings.Repeat("x", 124)},
		"GET /v1/upstreams":  {"limit=x", "upstream=", "upstream=http://a/b", "client=10.0.0.7"},
		"GET /v1/closes":     {"limit=x", "by=", "by=me", "by=Client", "why=", "why=because", "client=", "client=me", "peer=me", "upstream=", "upstream=/", "host=a/b", "path=", "how=RST", "after="},
		"GET /v1/status":     {"x=y"},
	} {
		method, path, _ := strings.Cut(endpoint, " ")
		body := ""
		if method == "PUT" || path == "/v1/batch" {
			body = `{"path":"/a","upstreams":["http://up"]}`
		}
		for _, query := range queries {
			for _, s := range []*server{g.server, alone} {
				if got := s.do(method, path+"?"+query, body); got.status != 400 {
					t.Errorf("%s?%s: got %d %s; want 400", endpoint, query, got.status, got.body)
				}
			}
		}
	}
	var open int
	for range g.proxy.Tunnels() {
		open++
	}
	if open != 1 || g.router.Table().Len() != 1 {
		t.Errorf("%d tunnels and %d routes are left; want 1 and 1", open, g.router.Table().Len())
	}
	for _, target := range []string{
		"/v1/closes?by=client&why=route+deleted", "/v1/closes?client=::ffff:10.0.0.7", "/v1/closes?client=unix", "/v1/tunnels?client=%5B::1%5D",
		"/v1/tunnels?client=_hidden", "/v1/tunnels?upstream=unix:/run/ide.sock", "/v1/routes?host=&owner=&after=", "/v1/upstreams?upstream=ide:8080&after=",
	} {
		g.want(200, "GET", target, "")
	}
}
