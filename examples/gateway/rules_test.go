package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// A workspace that sleeps wakes when a browser looks: its waiting page looks
// again by itself until the editor is there.
func TestDemoWakes(t *testing.T) {
	g := start(t, "-demo")
	page := browser(t, "status of 503")("http://" + g.public + "/webapp-01/ide-alan/")
	if title := value[string](t, page, "document.title"); title != "Waking up" {
		t.Errorf("the first page's title is %q; want that of the waiting page", title)
	}
	picture(t, page, "waking", scheme("light"))
	programtest.Eventually(t, "the editor is there", func() bool {
		awake, err := chromedp.Run(page, chromedp.Evaluate[bool](`!!document.getElementById("text") && !document.getElementById("text").disabled`))
		return err == nil && awake // an error: the page is just being left
	})
}

// The naming rule: one route leads to a thousand services by their names.
func TestDemoServices(t *testing.T) {
	g := start(t, "-demo")
	routes := func() int {
		var list struct{ Routes []json.RawMessage }
		g.must("GET", "/v1/routes?path=/service", nil, &list)
		return len(list.Routes)
	}
	before := routes()
	for i := range 1000 {
		response, body, err := g.get(fmt.Sprintf("/service/svc-%d/a/b?c", i))
		if want := fmt.Sprintf("The service at /service/svc-%d, asked for /a/b.\n", i); err != nil || response.StatusCode != 200 || string(body) != want {
			t.Fatalf("got %v %q, %v; want %q", response, body, err, want)
		}
	}
	if after := routes(); after != before {
		t.Errorf("%d routes, then %d", before, after)
	}
	for _, bad := range []string{"/service/", "/service/127.0.0.1/", "/service/2130706433/", "/service/0x7f000001/", "/service/localhost/", "/service/a%2fb/"} {
		if response, _, err := g.get(bad); err != nil || response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %v, %v; want 404", bad, response, err)
		}
	}
}

// A tenant's cookie and service worker cannot reach its sibling on the same
// host, whatever it asks for.
func TestTenantsInBrowser(t *testing.T) {
	g := start(t)
	var mu sync.Mutex
	cookies := map[string]string{} // that /ws/b/ was last sent, by path
	tenant := func(name string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			cookies[name] = r.Header.Get("Cookie")
			mu.Unlock()
			switch {
			case r.Header.Get("Service-Worker") != "":
				w.Header().Set("Service-Worker-Allowed", "/")
				w.Header().Set("Content-Type", "text/javascript")
				fmt.Fprint(w, `addEventListener("fetch", e => e.respondWith(new Response("taken over")))`)
			default:
				w.Header().Add("Set-Cookie", "from="+name+"; Path=/")
				w.Header().Add("Set-Cookie", "also=1; Path=/; Path=/ws/b")
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprintf(w, `<!DOCTYPE html><link rel="icon" href="data:,"><title>%s</title>`, name)
			}
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	g.put(slipswitch.Route{Path: "/ws/a", Tenant: true, Upstreams: slipswitch.To(tenant("a"))},
		slipswitch.Route{Path: "/ws/b", Tenant: true, Upstreams: slipswitch.To(tenant("b"))})
	open := browser(t, "provided scope")
	a := open("http://" + g.public + "/ws/a/")
	register := func(script, scope string) string {
		got, err := chromedp.Run(a, chromedp.Evaluate[string](fmt.Sprintf(
			`navigator.serviceWorker.register(%q, {scope: %q}).then(r => "registered " + new URL(r.scope).pathname, e => e.name)`, script, scope), chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, scope := range []string{"/", "/ws/", "/ws/b/", "/ws/a"} {
		for _, script := range []string{"/ws/a/sw.js", "/ws/a"} {
			if got := register(script, scope); got != "SecurityError" {
				t.Errorf("%s for %s: %s; want SecurityError", script, scope, got)
			}
		}
	}
	if got := register("/ws/a/sw.js", "/ws/a/"); got != "registered /ws/a/" {
		t.Errorf("for its own path: %s", got)
	}
	programtest.Eventually(t, "it is active", func() bool {
		active, err := chromedp.Run(a, chromedp.Evaluate[bool](`navigator.serviceWorker.getRegistration("/ws/a/").then(r => !!r.active)`, chromedp.EvalAwaitPromise))
		return err == nil && active
	})
	b := open("http://" + g.public + "/ws/b/")
	if got := value[string](t, b, "document.title"); got != "b" {
		t.Errorf("the sibling shows %q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(cookies["b"], "from=a") || strings.Contains(cookies["b"], "also") {
		t.Errorf("the sibling was sent %q", cookies["b"])
	}
}
