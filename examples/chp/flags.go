package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// flags are the flags of the command line.
type flags struct{ *flag.FlagSet }

// flags returns the flags that set o, group by group.
func (o *options) flags() flags {
	f := flags{flag.NewFlagSet("chp", flag.ContinueOnError)}
	f.SetOutput(io.Discard) // main prints the error, once
	f.Usage = func() {}
	o.addresses(f)
	o.certificates(f)
	o.targets(f)
	o.errorPages(f)
	o.requests(f)
	o.timeouts(f)
	o.process(f)
	return f
}

// usage returns the text for --help.
func (f flags) usage() string {
	var list strings.Builder
	f.SetOutput(&list)
	f.PrintDefaults()
	return "Usage: chp [options]\n\n" + longOption.ReplaceAllString(list.String(), "  --$1")
}

// longOption matches the options that package flag prints with one dash.
var longOption = regexp.MustCompile(`(?m)^  -(\w\w)`)

func (o *options) addresses(f flags) {
	f.StringVar(&o.public.ip, "ip", "", "`address` to serve on; empty means all addresses")
	f.port(&o.public.port, "port", "`port` to serve on (8000); 0 means any free port")
	f.StringVar(&o.public.socket, "socket", "", "Unix socket to serve on, at this `path`")
	f.StringVar(&o.api.ip, "api-ip", o.api.ip, "`address` of the REST API")
	f.port(&o.api.port, "api-port", "`port` of the REST API (--port + 1)")
	f.StringVar(&o.api.socket, "api-socket", "", "Unix socket of the REST API, at this `path`")
	f.StringVar(&o.metrics.ip, "metrics-ip", "", "`address` of the metrics; empty means all addresses")
	f.port(&o.metrics.port, "metrics-port", "`port` of the metrics; without it there are none")
	f.StringVar(&o.metrics.socket, "metrics-socket", "", "Unix socket of the metrics, at this `path`")
	f.port(&o.redirectPort, "redirect-port", "`port` on which HTTP is redirected to HTTPS")
	f.port(&o.redirectTo, "redirect-to", "`port` in the redirects (--port)")
}

func (o *options) certificates(f flags) {
	o.ssl.flags(f, "", "for the public server")
	o.apiSSL.flags(f, "api-", "for the REST API")
	f.StringVar(&o.clientSSL.key, "client-ssl-key", "", "`file` with the key in PEM, for upstreams")
	f.StringVar(&o.clientSSL.cert, "client-ssl-cert", "", "`file` with the certificate chain in PEM, for upstreams")
	f.StringVar(&o.clientSSL.ca, "client-ssl-ca", "", "`file` with the authorities that sign upstreams' certificates, in PEM")
	f.BoolVar(&o.insecure, "insecure", false, "do not verify the certificates of upstreams")
	f.StringVar(&o.sslProtocol, "ssl-protocol", "", "the only TLS `version` of all servers, such as TLSv1_2")
	f.StringVar(&o.sslCiphers, "ssl-ciphers", "", "cipher suites of TLS 1.2 by their OpenSSL names, separated by colons")
	f.BoolFunc("ssl-allow-rc4", "not supported: RFC 7465 forbids RC4", func(string) error {
		return errors.New("RC4 is not supported: RFC 7465 forbids it, and no client offers it")
	})
	f.Func("ssl-dhparam", "not supported: keys are exchanged by elliptic curves, which have no such parameters", func(string) error {
		return errors.New("Diffie-Hellman over finite fields is not supported: leave this out, since keys are exchanged by elliptic curves")
	})
	var unused bool // accepted, since it is the default anyway
	f.BoolVar(&unused, "client-ssl-request-cert", false, "accepted: upstreams must always show a certificate")
	f.BoolVar(&unused, "client-ssl-reject-unauthorized", false, "accepted: invalid certificates are refused unless --insecure is given")
}

func (t *serverTLS) flags(f flags, prefix, whose string) {
	f.StringVar(&t.key, prefix+"ssl-key", "", "`file` with the key in PEM, "+whose)
	f.StringVar(&t.cert, prefix+"ssl-cert", "", "`file` with the certificate chain in PEM, "+whose)
	f.StringVar(&t.ca, prefix+"ssl-ca", "", "`file` with the authorities that sign clients' certificates, in PEM, "+whose)
	f.BoolVar(&t.requestCert, prefix+"ssl-request-cert", false, "ask clients for a certificate, "+whose)
	f.BoolVar(&t.rejectUnauthorized, prefix+"ssl-reject-unauthorized", false, "refuse clients without a valid certificate, as --"+prefix+"ssl-request-cert does, too, "+whose)
}

func (o *options) targets(f flags) {
	f.StringVar(&o.defaultTarget, "default-target", "", "`URL` for requests without a route")
	f.Func("storage-backend", "store of the routes: bolt:FILE or `etcd:URL`[,URL…][#PREFIX]; without it, memory", o.setStorage)
	f.BoolVar(&o.hostRouting, "host-routing", false, "use the first segment of a route's path as its host")
	f.BoolVar(&o.noIncludePrefix, "no-include-prefix", false, "remove the route's path before forwarding")
	f.BoolVar(&o.noPrependPath, "no-prepend-path", false, "do not prepend the path of the target")
}

func (o *options) requests(f flags) {
	f.BoolVar(&o.noXForward, "no-x-forward", false, "do not add X-Forwarded headers")
	f.BoolVar(&o.changeOrigin, "change-origin", false, "set Host to the target's host")
	f.Func("custom-header", "`name:value` to set in each request; may be repeated", o.addCustomHeader)
	f.BoolVar(&o.autoRewrite, "auto-rewrite", false, "rewrite the host of redirects to the target's own host")
	f.StringVar(&o.protocolRewrite, "protocol-rewrite", "", "rewrite the `scheme` of redirects to the target's own host")
}

func (o *options) errorPages(f flags) {
	f.Func("error-target", "`URL` of error pages: URL/404?url=… is fetched", o.setErrorTarget)
	f.StringVar(&o.errorPath, "error-path", "", "`directory` of error pages: 404.html, or else error.html")
}

func (o *options) timeouts(f flags) {
	f.milliseconds(&o.timeout, "timeout", "`milliseconds` without a byte after which a request is aborted")
	f.milliseconds(&o.proxyTimeout, "proxy-timeout", "the same in `milliseconds`, for bytes of the target only")
	f.milliseconds(&o.keepAliveTimeout, "keep-alive-timeout", "`milliseconds` for which a client's idle connection is kept (5000)")
}

func (o *options) process(f flags) {
	f.StringVar(&o.pidFile, "pid-file", "", "`file` to write the process ID to")
	f.Func("log-level", "debug, info, warn or error (info)", o.setLogLevel)
	f.StringVar(&o.activity, "activity", "all", "what updates last_activity: all, or client, which ignores bytes that targets send unasked")
}

func (f flags) port(at *string, name, usage string) {
	f.Func(name, usage, func(s string) error {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return errors.New("a port is a number up to 65535")
		}
		*at = strconv.FormatUint(n, 10)
		return nil
	})
}

func (f flags) milliseconds(d *time.Duration, name, usage string) {
	f.Func(name, usage, func(s string) error {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return errors.New("must be a number of milliseconds")
		}
		*d = time.Duration(n) * time.Millisecond
		return nil
	})
}

func (o *options) addCustomHeader(s string) error {
	name, value, found := strings.Cut(s, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	switch {
	case !found || name == "":
		return fmt.Errorf("a colon was expected in custom header: %s", s)
	case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("%q is not a valid header", s)
	case unsettable[http.CanonicalHeaderKey(name)]:
		return fmt.Errorf("%s cannot be set, since requests depend on it; for Host use --change-origin", name)
	}
	o.customHeader.Set(name, value)
	return nil
}

// unsettable are the headers that frame or address a message.
var unsettable = map[string]bool{
	"Host": true, "Connection": true, "Upgrade": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Te": true,
}

func (o *options) setErrorTarget(s string) error {
	u, err := parseTarget(s)
	if err != nil {
		return err
	}
	o.errorTarget = u
	return nil
}

func (o *options) setLogLevel(s string) error {
	if err := o.logLevel.UnmarshalText([]byte(s)); err != nil {
		return errors.New("must be debug, info, warn or error")
	}
	return nil
}

func (o *options) setStorage(s string) error {
	kind, where, _ := strings.Cut(s, ":")
	if openers[kind] == nil || where == "" {
		return errors.New("must be bolt:FILE or etcd:URL[,URL…][#PREFIX]: Node.js modules cannot be loaded")
	}
	o.storage = s
	return nil
}
