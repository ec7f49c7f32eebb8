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
	"strconv"
	"strings"
	"time"
)

// version is the version of configurable-http-proxy that this program replaces.
const version = "5.3.0"

// options are the options of the command line, by their names there.
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
	token                string // from the environment
}

// An address is the address of a server: a socket, or an IP address and a port.
type address struct{ ip, port, socket string }

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

// readOptions reads the command line and the environment. For --help and
// --version it prints the text, and returns flag.ErrHelp.
func readOptions(args []string, env func(string) string, stdout io.Writer) (*options, error) {
	o := &options{
		api:          address{ip: "localhost"},
		customHeader: make(http.Header),
		token:        env("CONFIGPROXY_AUTH_TOKEN"),
	}
	o.ssl.passphrase = env("CONFIGPROXY_SSL_KEY_PASSPHRASE")
	o.apiSSL.passphrase = env("CONFIGPROXY_API_SSL_KEY_PASSPHRASE")
	var showsVersion bool
	flags := o.flags()
	flags.BoolVar(&showsVersion, "version", false, "print the version of the REST API and command line")
	flags.BoolVar(&showsVersion, "V", false, "short for --version")

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		io.WriteString(stdout, flags.usage())
		return nil, err
	case err != nil:
		return nil, err
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q: there are only options", flags.Arg(0))
	case showsVersion:
		fmt.Fprintln(stdout, version)
		return nil, flag.ErrHelp
	}
	return o, o.complete()
}

// complete sets options whose defaults depend on others, and refuses
// contradictions.
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

// upstreamTimeout is the time for which an upstream may be silent. Zero means no
// limit.
func (o *options) upstreamTimeout() time.Duration {
	if o.timeout > 0 && o.proxyTimeout > 0 {
		return min(o.timeout, o.proxyTimeout)
	}
	return max(o.timeout, o.proxyTimeout)
}
