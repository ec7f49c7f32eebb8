package main_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// modes are all command lines.
func modes(t *testing.T) []mode {
	c := makeCertificates(t)
	return []mode{
		{name: "plain"},
		{name: "api token", token: "a-secret-token"},
		{name: "unix sockets", sockets: true},
		{name: "host-routing", hostRouting: true, args: is("--host-routing"), checks: []check{{"hosts", hosts}}},
		{name: "no-include-prefix", noPrefix: true, args: is("--no-include-prefix")},
		{name: "no-prepend-path", noPrepend: true, args: is("--no-prepend-path")},
		{name: "change-origin", changeOrigin: true, args: is("--change-origin")},
		{name: "no-x-forward", noForward: true, args: is("--no-x-forward")},
		{name: "auto-rewrite", autoRewrite: true, args: is("--auto-rewrite")},
		{name: "protocol-rewrite", protocolRewrite: "https", args: is("--protocol-rewrite", "https")},
		{name: "custom-header", header: map[string]string{"X-One": "1", "X-Two": "2:3"},
			args: is("--custom-header", "X-One:0", "--custom-header= X-One : 1 ", "--custom-header", "X-Two: 2:3")},
		{name: "default-target", withDefault: true, args: func(d *driver) []string { return []string{"--default-target", d.second.url()} },
			checks: []check{{"default target", defaultTarget}}},
		{name: "error-path", ownErrors: true, args: func(d *driver) []string {
			d.wrote("404.html", "<h1>not here</h1>")
			d.wrote("error.html", "<h1>something else</h1>")
			return []string{"--error-path", d.dir}
		}, checks: []check{{"pages", errorPath}}},
		{name: "error-target", ownErrors: true, args: func(d *driver) []string { return []string{"--error-target", d.pages.url() + "/pages?a=b"} },
			checks: []check{{"pages", errorTarget}}},
		{name: "error-target, a socket", ownErrors: true, args: func(d *driver) []string {
			d.pages = startTarget(d, "pages", filepath.Join(d.dir, "pages"), false)
			return []string{"--error-target=" + d.pages.url()}
		}, checks: []check{{"pages", errorTarget}}},
		{name: "proxy-timeout", args: is("--proxy-timeout", "3000"), checks: []check{{"503", timesOut}, {"slow clients", slowClients}, {"WebSockets stay", staysOpen}}},
		{name: "timeout", args: is("--timeout", "3000", "--keep-alive-timeout", "20000"), checks: []check{{"503", timesOut}, {"slow clients", slowClients}, {"WebSockets stay", staysOpen}}},
		{name: "keep-alive-timeout", args: is("--keep-alive-timeout", "1500"), checks: []check{{"idle connections end", keepAlive}}},
		{name: "metrics", args: is("--log-level", "DEBUG"), checks: []check{{"metrics", metrics}}},
		{name: "TLS", tls: c.client(nil), apiTLS: c.client(nil), args: is("--ssl-key", c.key, "--ssl-cert", c.cert, "--api-ssl-key", c.key, "--api-ssl-cert", c.cert)},
		{name: "TLS, encrypted keys", tls: c.client(nil), apiTLS: c.client(nil),
			env:  []string{"CONFIGPROXY_SSL_KEY_PASSPHRASE=open sesame", "CONFIGPROXY_API_SSL_KEY_PASSPHRASE=open sesame"},
			args: is("--ssl-key", c.encrypted, "--ssl-cert", c.cert, "--api-ssl-key", c.encryptedOld, "--api-ssl-cert", c.cert)},
		{name: "TLS, clients' certificates", tls: c.client(&c.pair), apiTLS: c.client(&c.pair), args: is("--ssl-key", c.key, "--ssl-cert", c.cert,
			"--ssl-ca", c.ca, "--ssl-request-cert", "--ssl-reject-unauthorized", "--api-ssl-key", c.key, "--api-ssl-cert", c.cert,
			"--api-ssl-ca", c.ca, "--api-ssl-request-cert", "--api-ssl-reject-unauthorized"), checks: []check{{"strangers", strangers}}},
		{name: "TLS 1.2, one suite", tls: c.client(nil), args: is("--ssl-key", c.key, "--ssl-cert", c.cert, "--ssl-protocol", "TLSv1_2",
			"--ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"), checks: []check{{"the suite", oneSuite}}},
		{name: "redirect-port", tls: c.client(nil), args: func(d *driver) []string {
			_, ports := freePorts(d, 1)
			d.extra = "127.0.0.1:" + ports[0]
			return []string{"--ssl-key", c.key, "--ssl-cert", c.cert, "--redirect-port", ports[0], "--redirect-to", "8443"}
		}, checks: []check{{"redirects", redirects}}},
		{name: "targets by TLS", args: is("--client-ssl-key", c.key, "--client-ssl-cert", c.cert, "--client-ssl-ca", c.ca),
			checks: []check{{"certificates", c.upstreams}}},
		{name: "targets by TLS, insecure", oursToo: true, args: is("--insecure"), checks: []check{{"any certificate", c.insecure}}},
		{name: "storage in a file", oursToo: true, args: func(d *driver) []string {
			return []string{"--storage-backend", "bolt:" + filepath.Join(d.dir, "routes")}
		},
			checks: []check{{"routes outlive the process", outliveProcess}}},
		{name: "storage in etcd", oursToo: true, args: func(d *driver) []string { return []string{"--storage-backend", startEtcd(d)} }},
		{name: "activity by clients alone", oursToo: true, args: is("--activity", "client"), checks: []check{{"pushes do not count", pushes}}},
	}
}

func is(args ...string) func(*driver) []string { return func(*driver) []string { return args } }

func hosts(d *driver) {
	d.put("/hosts", d.target.url())
	d.rest(201, "POST", "/api/routes/other.example.com/hosts", fmt.Sprintf(`{"target":%q}`, d.second.url()))
	for at, want := range map[string]string{host: "first", host + ":8000": "first", "other.example.com": "second", "other.example.com:1": "second"} {
		if got := d.saw(d.get(200, "/hosts/", "Host", at).body); got.Name != want || got.Host != at {
			d.Errorf("%s: by the %s target as %s; want the %s", at, got.Name, got.Host, want)
		}
	}
	d.get(404, "/hosts/", "Host", "third.example.com")
	if got, listed := d.data("/hosts")["host"], d.list("")["/other.example.com/hosts"]["host"]; got != host || listed != "other.example.com" {
		d.Errorf("the API shows the hosts %v and %v", got, listed)
	}
}

func defaultTarget(d *driver) {
	if got := d.list("")["/"]["target"]; got != d.second.url() {
		d.Errorf("got target %v of /; want %s", got, d.second.url())
	}
	if got := d.saw(d.get(200, "/what/has/no?route").body); got.Name != "second" || got.URI != "/what/has/no?route" {
		d.Errorf("got %+v; want the default target", got)
	}
}

func errorPath(d *driver) {
	if got := d.get(404, "/nothing"); got.body != "<h1>not here</h1>" || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/html") {
		d.Errorf("got %s %q; want 404.html", got.Header.Get("Content-Type"), got.body)
	}
	gone := startTarget(d, "gone", "", false)
	d.put("/gone", gone.url())
	gone.Close()
	if got := d.get(503, "/gone"); got.body != "<h1>something else</h1>" {
		d.Errorf("got %q; want error.html", got.body)
	}
	os.Remove(filepath.Join(d.dir, "404.html"))
	os.Remove(filepath.Join(d.dir, "error.html"))
	if got := d.get(404, "/nothing"); got.body != "Not Found" {
		d.Errorf("got %q; want plain text where there is no page", got.body)
	}
}

func errorTarget(d *driver) {
	got := d.get(404, "/nothing/at%20all?x=1&y")
	saw := d.saw(got.body)
	base, query, _ := strings.Cut(saw.URI, "?")
	want, values := "/404", "url=%2Fnothing%2Fat%2520all%3Fx%3D1%26y"
	if strings.Contains(strings.Join(d.cmd.Args, " "), "/pages?a=b") {
		want, values = "/pages/404", "a=b&"+values
		if d.real { // known: it appends the slash and so the code to a target's query
			want, values = base, query
		}
	}
	if saw.Name != "pages" || saw.Method != "GET" || base != want || query != values {
		d.Errorf("the error target was asked for %s %s; want %s?%s", saw.Method, saw.URI, want, values)
	}
	if got.Header.Get("Content-Type") != "application/json" {
		d.Errorf("got %v; want the page's Content-Type", got.Header)
	}
	d.pages.Close()
	if got := d.get(404, "/nothing"); got.body != "Not Found" {
		d.Errorf("got %q; want plain text without a page", got.body)
	}
}

// metrics are under the names that dashboards have. Each check before this one
// has counted.
func metrics(d *driver) {
	read := func() map[string]string {
		d.Helper()
		got, err := d.ask(d.metrics, "GET", "/metrics", "", nil)
		if err != nil || got.StatusCode != 200 || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
			d.Fatalf("got %v, %v; want metrics", got.Response, err)
		}
		values := make(map[string]string)
		for line := range strings.Lines(got.body) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
				values[name] = value
			}
		}
		return values
	}
	d.put("/metrics", d.target.url())
	before := read()
	d.put("/metrics", d.target.url())
	d.list("")
	d.data("/metrics")
	d.get(200, "/metrics/")
	d.get(302, "/metrics/", "X-Do", "302")
	d.get(404, "/no-metrics/")
	conn, _ := d.dial("/metrics/ws")
	conn.CloseNow()
	d.rest(204, "DELETE", d.route("/metrics"), "")
	want := map[string]int{
		"api_route_get": 1, "api_route_add": 1, "api_route_delete": 1, "requests_ws": 1, "requests_web": 3,
		`requests_proxy{status="200"}`: 1, `requests_proxy{status="302"}`: 1, `requests_proxy{status="404"}`: 1,
		`requests_api{status="200"}`: 2, `requests_api{status="201"}`: 1, `requests_api{status="204"}`: 1, "find_target_for_req_count": 4,
	}
	number := func(values map[string]string, name string) (n int) {
		fmt.Sscan(values[name], &n)
		return n
	}
	programtest.Eventually(d, "all is counted", func() bool {
		now := read()
		for name, more := range want {
			if number(now, name)-number(before, name) < more {
				return false
			}
		}
		return true
	})
	now := read()
	for name, more := range want {
		if got := number(now, name) - number(before, name); got != more {
			d.Errorf("%s has grown by %d; want %d", name, got, more)
		}
	}
	for _, name := range []string{`find_target_for_req{quantile="0.5"}`, "find_target_for_req_sum", "last_activity_updating_sum", `last_activity_updating{quantile="0.99"}`, "process_cpu_seconds_total"} {
		if _, ok := now[name]; !ok {
			d.Errorf("there is no %s", name)
		}
	}
	if got := number(now, "last_activity_updating_count") - number(before, "last_activity_updating_count"); got < 1 {
		d.Errorf("last_activity_updating_count has grown by %d; want the requests that were served", got)
	}
	if got, err := d.ask(d.metrics, "GET", "/other", "", nil); err != nil || got.StatusCode != 404 {
		d.Errorf("got %v, %v; want 404", got.Response, err)
	}
}

func strangers(d *driver) {
	for name, a := range map[string]address{"public": d.public, "API": d.api} {
		a.secure = a.secure.Clone()
		a.secure.Certificates = nil
		if got, err := d.ask(a, "GET", "/api/routes", "", nil); err == nil {
			d.Errorf("%s: got %s without a certificate", name, got.Status)
		}
	}
}

func oneSuite(d *driver) {
	conn, err := d.public.dial(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	defer conn.Close()
	if state := conn.(*tls.Conn).ConnectionState(); state.Version != tls.VersionTLS12 || state.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
		d.Errorf("got %s, %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
	}
	for _, config := range []*tls.Config{{MinVersion: tls.VersionTLS13}, {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}} {
		config.RootCAs, config.ServerName = d.public.secure.RootCAs, d.public.secure.ServerName
		if conn, err := (address{d.public.at, config}).dial(d.Context()); err == nil {
			conn.Close()
			d.Errorf("%+v is accepted", config)
		}
	}
}

func redirects(d *driver) {
	a := address{at: d.extra}
	for at, want := range map[string]string{host: host + ":8443", host + ":8000": host + ":8443"} {
		var got answer
		programtest.Eventually(d, "the redirection serves", func() (ok bool) {
			var err error
			got, err = d.ask(a, "GET", "/a%20b?c=d", "", map[string]string{"Host": at})
			return err == nil
		})
		if got.StatusCode != http.StatusMovedPermanently || got.Header.Get("Location") != "https://"+want+"/a%20b?c=d" {
			d.Errorf("got %s to %s; want 301 to https://%s/a%%20b?c=d", got.Status, got.Header.Get("Location"), want)
		}
	}
	for _, target := range []string{"http:@evil.example/", "http:evil.example", "*"} {
		if got := d.raw(a, "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); !d.real && got != "400" {
			d.Errorf("GET %s: got %s; want 400", target, got)
		}
	}
}

// upstreams: targets that want a certificate, and have one of the authority's.
func (c *certificates) upstreams(d *driver) {
	u := startTarget(d, "secure", "", true, func(config *tls.Config) {
		config.Certificates = []tls.Certificate{c.pair}
		config.ClientCAs, config.ClientAuth = c.pool, tls.RequireAndVerifyClientCert
	})
	d.put("/secure", u.url())
	if got := d.saw(d.get(200, "/secure/", "Host", "127.0.0.1").body).Name; got != "secure" {
		d.Errorf("by the %s target", got)
	}
	if d.real {
		d.get(503, "/secure/") // known: it wants the target's certificate to be for the host that the client names
	} else {
		conn, _ := d.dial("/secure/ws")
		d.talk(conn, "x")
	}
	d.put("/other", startTarget(d, "other", "", true).url())
	d.get(503, "/other/") // of nobody's authority
}

func (c *certificates) insecure(d *driver) {
	d.put("/secure", startTarget(d, "secure", "", true).url())
	if got := d.saw(d.get(200, "/secure/").body).Name; got != "secure" {
		d.Errorf("by the %s target", got)
	}
}

// outliveProcess kills the process, and starts it with another command line:
// routes are kept as they were put, not as they were served.
func outliveProcess(d *driver) {
	for name := range d.list("") {
		d.rest(204, "DELETE", "/api/routes"+(&url.URL{Path: name}).EscapedPath(), "")
	}
	d.rest(201, "POST", d.route("/kept"), fmt.Sprintf(`{"target":"%s/base","user":"a"}`, d.target.url()))
	d.put("/deleted", d.target.url())
	d.rest(204, "DELETE", d.route("/deleted"), "")
	if got := d.saw(d.get(200, "/kept/x").body).URI; got != "/base/kept/x" {
		d.Errorf("forwarded as %s", got)
	}
	d.kill()
	store := "bolt:" + filepath.Join(d.dir, "routes")
	d.process = start(d, d.program, mode{}, "--storage-backend", store, "--no-include-prefix", "--no-prepend-path")
	if got := d.list(""); len(got) != 1 || got["/kept"]["user"] != "a" || got["/kept"]["target"] != d.target.url()+"/base" {
		d.Errorf("got %v; want the one route as it was put", got)
	}
	if got := d.saw(d.get(200, "/kept/x").body).URI; got != "/x" {
		d.Errorf("forwarded as %s; want it as the command line says now", got)
	}
	if out, status := runToEnd(d, "--storage-backend", store, "--port=0", "--api-port=0"); status != 1 || !strings.Contains(out, "another process has the file open") {
		d.Errorf("a second one: status %d, %q", status, out)
	}
}

// pushes are what a target sends by itself.
func pushes(d *driver) {
	d.put("/pushes", d.target.url())
	_, pushed := d.push("/pushes")
	d.moves("/pushes", "a push", false, pushed)
	d.moves("/pushes", "a part of a download", false, d.download("/pushes"))
}
