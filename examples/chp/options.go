package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// version is that of the configurable-http-proxy whose place this takes.
const version = "5.3.0"

// options are the command line, by the names that it has there.
type options struct {
	public, api, metrics address
	ssl, apiSSL          serverTLS
	clientSSL            clientTLS
	sslProtocol          string
	sslCiphers           string
	redirectPort         string
	redirectTo           string
	pidFile              string
	defaultTarget        string
	errorTarget          *url.URL // nil: none
	errorPath            string
	noXForward           bool
	noPrependPath        bool
	noIncludePrefix      bool
	hostRouting          bool
	autoRewrite          bool
	changeOrigin         bool
	protocolRewrite      string
	customHeader         http.Header
	insecure             bool
	timeout              time.Duration
	proxyTimeout         time.Duration
	keepAliveTimeout     time.Duration
	storage              string
	activity             string
	logLevel             slog.Level
	token                string // of the environment
}

// An address is where one of the servers listens: at a socket or a port.
type address struct{ ip, port, socket string }

func (a address) network() string {
	if a.socket != "" {
		return "unix"
	}
	return "tcp"
}

func (a address) String() string {
	if a.socket != "" {
		return a.socket
	}
	ip := strings.Trim(a.ip, "[]")
	if strings.Contains(ip, ":") {
		ip = "[" + ip + "]"
	}
	return ip + ":" + a.port
}

// local reports whether only this machine's users reach the address.
func (a address) local() bool {
	ip, err := netip.ParseAddr(a.ip)
	return a.socket != "" || a.ip == "localhost" || err == nil && ip.IsLoopback()
}

// readOptions reads a command line, and what the environment says to it. It
// prints what --help and --version ask for, and returns flag.ErrHelp then.
func readOptions(args []string, env func(string) string, stdout io.Writer) (*options, error) {
	o := &options{
		api:          address{ip: "localhost"},
		customHeader: make(http.Header),
		token:        env("CONFIGPROXY_AUTH_TOKEN"),
	}
	o.ssl.passphrase = env("CONFIGPROXY_SSL_KEY_PASSPHRASE")
	o.apiSSL.passphrase = env("CONFIGPROXY_API_SSL_KEY_PASSPHRASE")
	flags := flag.NewFlagSet("chp", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error is told once
	flags.Usage = func() {}

	port := func(at *string, name, usage string) {
		flags.Func(name, usage, func(s string) error {
			if n, err := strconv.ParseUint(s, 10, 16); err != nil {
				return fmt.Errorf("a port is a number up to 65535")
			} else {
				*at = strconv.FormatUint(n, 10)
			}
			return nil
		})
	}
	milliseconds := func(d *time.Duration, name, usage string) {
		flags.Func(name, usage, func(s string) error {
			n, err := strconv.ParseUint(s, 10, 31)
			if err != nil {
				return errors.New("it is a number of milliseconds")
			}
			*d = time.Duration(n) * time.Millisecond
			return nil
		})
	}
	server := func(t *serverTLS, prefix, whose string) {
		flags.StringVar(&t.key, prefix+"ssl-key", "", "`file` with the key in PEM, "+whose)
		flags.StringVar(&t.cert, prefix+"ssl-cert", "", "`file` with the certificate chain in PEM, "+whose)
		flags.StringVar(&t.ca, prefix+"ssl-ca", "", "`file` with the authorities of clients' certificates in PEM, "+whose)
		flags.BoolVar(&t.requestCert, prefix+"ssl-request-cert", false, "ask clients for a certificate, "+whose)
		flags.BoolVar(&t.rejectUnauthorized, prefix+"ssl-reject-unauthorized", false, "refuse clients without a valid one, as is done anyway")
	}
	var unused bool // accepted, since it says what is done anyway

	flags.StringVar(&o.public.ip, "ip", "", "`address` to serve on; all of them if empty")
	port(&o.public.port, "port", "`port` to serve on (8000); 0 is a free one")
	flags.StringVar(&o.public.socket, "socket", "", "Unix socket to serve on, at this `path`")
	server(&o.ssl, "", "the public server's")
	flags.StringVar(&o.sslProtocol, "ssl-protocol", "", "the one TLS `version`, such as TLSv1_2, of all servers")
	flags.StringVar(&o.sslCiphers, "ssl-ciphers", "", "cipher suites of TLS 1.2 by their names in OpenSSL, with colons between")
	flags.BoolFunc("ssl-allow-rc4", "not supported: nobody speaks it any more", func(string) error {
		return errors.New("RC4 is not supported: RFC 7465 forbids it, and no client offers it")
	})
	flags.Func("ssl-dhparam", "not supported: key exchange is by elliptic curves, which have no such parameters", func(string) error {
		return errors.New("Diffie-Hellman over finite fields is not supported: leave this out, keys are exchanged by elliptic curves")
	})
	flags.StringVar(&o.api.ip, "api-ip", o.api.ip, "`address` of the REST API")
	port(&o.api.port, "api-port", "`port` of the REST API (--port + 1)")
	flags.StringVar(&o.api.socket, "api-socket", "", "Unix socket of the REST API, at this `path`")
	server(&o.apiSSL, "api-", "the REST API's")
	flags.StringVar(&o.clientSSL.key, "client-ssl-key", "", "`file` with the key in PEM, for upstreams")
	flags.StringVar(&o.clientSSL.cert, "client-ssl-cert", "", "`file` with the certificate chain in PEM, for upstreams")
	flags.StringVar(&o.clientSSL.ca, "client-ssl-ca", "", "`file` with the authorities of upstreams' certificates in PEM")
	flags.BoolVar(&unused, "client-ssl-request-cert", false, "accepted: upstreams are always asked for their certificate")
	flags.BoolVar(&unused, "client-ssl-reject-unauthorized", false, "accepted: invalid ones are refused, without --insecure")
	flags.StringVar(&o.defaultTarget, "default-target", "", "`URL` for what has no route")
	flags.Func("error-target", "`URL` that error pages are taken from: URL/404?url=…", o.setErrorTarget)
	flags.StringVar(&o.errorPath, "error-path", "", "`directory` that error pages are taken from: 404.html, else error.html")
	port(&o.redirectPort, "redirect-port", "`port` on which HTTP is redirected to HTTPS")
	port(&o.redirectTo, "redirect-to", "`port` that it is redirected to (--port)")
	flags.StringVar(&o.pidFile, "pid-file", "", "`file` to write the process's number to")
	flags.BoolVar(&o.noXForward, "no-x-forward", false, "do not add X-Forwarded headers")
	flags.BoolVar(&o.noPrependPath, "no-prepend-path", false, "leave the paths of targets out")
	flags.BoolVar(&o.noIncludePrefix, "no-include-prefix", false, "remove the route's path from requests")
	flags.BoolVar(&o.autoRewrite, "auto-rewrite", false, "rewrite the host of redirects to the target's own host")
	flags.BoolVar(&o.changeOrigin, "change-origin", false, "make the target's host the Host of requests")
	flags.StringVar(&o.protocolRewrite, "protocol-rewrite", "", "rewrite the `scheme` of redirects to the target's own host")
	flags.Func("custom-header", "`name:value` to set in each request; may be repeated", o.addCustomHeader)
	flags.BoolVar(&o.insecure, "insecure", false, "do not verify the certificates of upstreams")
	flags.BoolVar(&o.hostRouting, "host-routing", false, "the first segment of a route's path is its host")
	flags.StringVar(&o.metrics.ip, "metrics-ip", "", "`address` of the metrics; all of them if empty")
	port(&o.metrics.port, "metrics-port", "`port` of the metrics; none if left out")
	flags.StringVar(&o.metrics.socket, "metrics-socket", "", "Unix socket of the metrics, at this `path`")
	flags.Func("log-level", "debug, info, warn or error (info)", o.setLogLevel)
	milliseconds(&o.timeout, "timeout", "`milliseconds` without a byte until a request is given up")
	milliseconds(&o.proxyTimeout, "proxy-timeout", "the same, of the upstream's")
	flags.Func("storage-backend", "where routes are kept: bolt:FILE or `etcd:URL`[,URL…][#PREFIX]; in memory if left out", o.setStorage)
	milliseconds(&o.keepAliveTimeout, "keep-alive-timeout", "`milliseconds` that a client's idle connection is kept (5000)")
	flags.StringVar(&o.activity, "activity", "all", "what moves last_activity: all, or client, which is without what upstreams send by themselves")
	var showVersion bool
	flags.BoolVar(&showVersion, "version", false, "print the version of the REST API and command line")
	flags.BoolVar(&showVersion, "V", false, "short for --version")

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		var list strings.Builder
		flags.SetOutput(&list)
		flags.PrintDefaults()
		fmt.Fprint(stdout, "Usage: chp [options]\n\n", longOption.ReplaceAllString(list.String(), "  --$1"))
		return nil, err
	case err != nil:
		return nil, err
	case flags.NArg() > 0:
		return nil, fmt.Errorf("what is %q? there are only options", flags.Arg(0))
	case showVersion:
		fmt.Fprintln(stdout, version)
		return nil, flag.ErrHelp
	}
	return o, o.complete()
}

// longOption is how package flag prints what others spell with two dashes.
var longOption = regexp.MustCompile(`(?m)^  -(\w\w)`)

// complete fills in what follows from other options, and refuses those that
// contradict each other.
func (o *options) complete() error {
	switch {
	case o.public.socket != "" && o.public.ip+o.public.port != "":
		return errors.New("option '--socket' cannot be used with option '--port' or '--ip'")
	case o.redirectPort != "" && o.ssl.key+o.ssl.cert == "":
		return errors.New("HTTPS redirection specified but certificates not provided: --redirect-port needs --ssl-key and --ssl-cert")
	case o.redirectPort != "" && o.redirectTo == "" && o.public.socket != "":
		return errors.New("with --socket, --redirect-port needs --redirect-to: there is no port to redirect to")
	case o.errorTarget != nil && o.errorPath != "":
		return errors.New("cannot specify both --error-target and --error-path: pick one")
	case o.activity != "all" && o.activity != "client":
		return fmt.Errorf("--activity %q must be all or client", o.activity)
	case o.protocolRewrite != "" && o.protocolRewrite != "http" && o.protocolRewrite != "https":
		return fmt.Errorf("--protocol-rewrite %q must be http or https", o.protocolRewrite)
	}
	for _, a := range []*address{&o.public, &o.api, &o.metrics} {
		if a.ip == "*" {
			a.ip = ""
		}
	}
	if o.public.socket == "" {
		o.public.port = cmp.Or(o.public.port, "8000")
	}
	if o.api.socket == "" && o.api.port == "" {
		o.api.port = "8001"
		if n, _ := strconv.Atoi(o.public.port); o.public.port != "" && n > 0 {
			o.api.port = strconv.Itoa(n + 1)
		} else if o.public.port == "0" {
			o.api.port = "0"
		}
	}
	o.redirectTo = cmp.Or(o.redirectTo, o.public.port)
	return nil
}

func (o *options) addCustomHeader(s string) error {
	name, value, found := strings.Cut(s, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	switch {
	case !found || name == "":
		return fmt.Errorf("a colon was expected in custom header: %s", s)
	case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("%q is no header", s)
	case unsettable[http.CanonicalHeaderKey(name)]:
		return fmt.Errorf("%s cannot be set, since requests depend on it: for Host there is --change-origin", name)
	}
	o.customHeader.Set(name, value)
	return nil
}

// unsettable are the headers that a message's shape depends on.
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
		return errors.New("it is debug, info, warn or error")
	}
	return nil
}

func (o *options) setStorage(s string) error {
	kind, where, _ := strings.Cut(s, ":")
	if openers[kind] == nil || where == "" {
		return errors.New("modules of Node.js cannot be loaded: it is bolt:FILE or etcd:URL[,URL…][#PREFIX]")
	}
	o.storage = s
	return nil
}

// upstreamTimeout is how long an upstream may be silent; 0: for ever.
func (o *options) upstreamTimeout() time.Duration {
	if o.timeout > 0 && o.proxyTimeout > 0 {
		return min(o.timeout, o.proxyTimeout)
	}
	return max(o.timeout, o.proxyTimeout)
}
