package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
)

// settings are the program's flags.
type settings struct {
	listen      string
	admin       string
	adminHosts  names
	health      string
	token       string
	tokenFile   string
	trusted     prefixes
	stores      specs
	name        string
	maxStale    time.Duration
	limits      slipswitch.Limits
	streams     int // of an HTTP/2 connection
	headerBytes int
	drainDelay  time.Duration
	drainWindow time.Duration
	certFile    string
	keyFile     string
	logFormat   string
	logLevel    slog.Level
	cpuProfile  string
	demo        bool
}

// flags returns the flags that set s.
func (s *settings) flags() *flag.FlagSet {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error, once
	flags.Usage = func() {}
	flags.StringVar(&s.listen, "listen", "", "`address` to serve on (default \":8080\", with -demo \"127.0.0.1:8080\")")
	flags.StringVar(&s.admin, "admin", "127.0.0.1:8081", "`address` of the admin API, or unix:PATH; never an address that serves workspaces; empty means no admin API")
	flags.Var(&s.adminHosts, "admin-hosts", "comma-separated host `names`, such as gateway.internal, under which the admin API answers besides localhost and IP addresses; * means any")
	flags.StringVar(&s.health, "health", "", "`address`, or unix:PATH, that answers only /livez and /readyz, for probes; the admin API answers them, too")
	flags.StringVar(&s.token, "admin-token", "", "`token` that requests to the admin API must carry; set it in the environment, since all users can read a command line")
	flags.StringVar(&s.tokenFile, "admin-token-file", "", "`file` with that token, or with several lines of a holder's name and a token; created for its owner only if it does not exist; read again at SIGHUP (default \"slipswitch/admin-token\" in the user's configuration directory)")
	flags.Var(&s.trusted, "trusted-proxies", "comma-separated `addresses` and ranges of the proxies before this one, whose forwarded headers are trusted")
	flags.Var(dataFile{&s.stores}, "data", "`file` that keeps the routes: short for -store bolt:FILE. If another process has it open, the gateway waits for it, up to -drain-delay plus -drain-window")
	flags.Var(&s.stores, "store", "a `store` of routes: memory, bolt:FILE, file:DIRECTORY or etcd:URL[,URL…][?OPTIONS][#PREFIX], with the options ca=FILE, cert=FILE&key=FILE and user=NAME&password-file=FILE; may be repeated, and the admin API writes to the first. Without a store, routes end with the process")
	flags.StringVar(&s.name, "name", hostname(), "this gateway's `name` among those that share a store")
	flags.Var((*period)(&s.maxStale), "max-stale", "`time` for which routes are served while their store is out of reach; set it if addresses are reassigned to others; 0 means for ever")
	flags.Var((*count)(&s.limits.Requests), "max-requests", "greatest `number` of requests in progress; further ones are answered with 503 (0: 16384, or half of the descriptors if that is less)")
	flags.Var((*count)(&s.limits.RequestsPerRoute), "max-requests-per-route", "greatest `number` of them at one host and path (0: half of -max-requests)")
	flags.Var((*count)(&s.limits.RequestsPerClient), "max-requests-per-client", "greatest `number` of them of one client address, or IPv6 network of 64 bits (0: a quarter of -max-requests)")
	flags.Var((*count)(&s.streams), "max-streams", "greatest `number` of requests in progress on one HTTP/2 connection (0: 100)")
	flags.Var((*count)(&s.headerBytes), "max-header-bytes", "greatest `number` of bytes in a request's line and header; longer ones are answered with 431 (0: 65536)")
	flags.Var((*count)(&s.limits.Tunnels), "max-tunnels", "greatest `number` of tunnels; further ones are answered with 503 (0: as many as descriptors allow)")
	flags.Var((*count)(&s.limits.TunnelsPerRoute), "max-tunnels-per-route", "greatest `number` of them at one host and path (0: no limit)")
	flags.Var((*count)(&s.limits.TunnelsPerClient), "max-tunnels-per-client", "greatest `number` of them of one client address, or IPv6 network of 64 bits (0: no limit)")
	flags.Var((*count)(&s.limits.Handshakes), "max-handshakes", "greatest `number` of upgrades that wait for their answer (0: no limit)")
	flags.Var((*period)(&s.drainDelay), "drain-delay", "`time` after SIGTERM during which the gateway still serves, but is not ready, until load balancers have noticed")
	flags.Var((*period)(&s.drainWindow), "drain-window", "`time` after that in which open requests and tunnels may end; tunnels are closed one by one over three quarters of it")
	flags.StringVar(&s.certFile, "tls-cert", "", "`file` with the certificate chain in PEM; read again when it changes, and at SIGHUP")
	flags.StringVar(&s.keyFile, "tls-key", "", "`file` with the certificate's key in PEM")
	flags.StringVar(&s.logFormat, "log-format", "text", "text or json")
	flags.TextVar(&s.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error; the end of a tunnel is info")
	flags.StringVar(&s.cpuProfile, "cpuprofile", "", "`file` for a CPU profile, from start to end")
	flags.BoolVar(&s.demo, "demo", false, "serve two demo workspaces, and a page to watch them")
	return flags
}

// readSettings reads the environment, then the flags, which win. For -help it
// prints the usage, and returns flag.ErrHelp.
func readSettings(args []string, env func(string) (string, bool), stdout io.Writer) (*settings, error) {
	s := &settings{drainDelay: 5 * time.Second, drainWindow: 20 * time.Second}
	flags := s.flags()
	var wrong error
	flags.VisitAll(func(f *flag.Flag) {
		name := envName(f.Name)
		if value, ok := env(name); ok {
			if err := f.Value.Set(value); err != nil {
				wrong = errors.Join(wrong, fmt.Errorf("%s: %w", name, err))
			}
		}
	})
	if wrong != nil {
		return nil, wrong
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(stdout, "usage: gateway [flags]\n\n")
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		fmt.Fprintf(stdout, "\nEach flag can also be set in the environment: -drain-delay as %s.\n", envName("drain-delay"))
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: see gateway -help", err)
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	case (s.certFile == "") != (s.keyFile == ""):
		return nil, errors.New("-tls-cert and -tls-key go together")
	case s.token != "" && s.tokenFile != "":
		return nil, errors.New("-admin-token and -admin-token-file cannot be used together")
	case s.logFormat != "text" && s.logFormat != "json":
		return nil, fmt.Errorf("-log-format must be text or json, not %q", s.logFormat)
	case s.demo && len(s.stores) > 0:
		return nil, errors.New("-demo keeps its routes in memory: leave -data and -store out")
	}
	if err := checkToken(s.token); err != nil {
		return nil, fmt.Errorf("-admin-token: %w", err)
	}
	if s.listen == "" {
		s.listen = ":8080"
		if s.demo {
			s.listen = "127.0.0.1:8080" // everybody who can see the demo can type in it
		}
	}
	return s, nil
}

func envName(flag string) string {
	return "SLIPSWITCH_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (s *settings) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// hostname is the default name of this gateway.
func hostname() string {
	name, _ := os.Hostname()
	return name
}

// period is a flag for a duration.
type period time.Duration

func (p *period) String() string { return time.Duration(*p).String() }

func (p *period) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q must be a time such as 20s or 1m30s", text)
	}
	*p = period(d)
	return nil
}

// count is a flag for a number. The usage of the flag says what 0 means.
type count int

func (c *count) String() string { return strconv.Itoa(int(*c)) }

func (c *count) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("%q must be a number, 0 or greater", text)
	}
	*c = count(n)
	return nil
}

// names is a flag for host names.
type names []string

func (n *names) String() string { return strings.Join(*n, ",") }

// Set replaces the list.
func (n *names) Set(list string) error {
	*n = nil
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSuffix(strings.TrimSpace(name), ".")
		if strings.ContainsAny(name, ":/ ") || name != "*" && strings.Contains(name, "*") {
			return fmt.Errorf("%q must be a host name without port, or *", name)
		}
		if name != "" {
			*n = append(*n, name)
		}
	}
	return nil
}

// prefixes is a flag for addresses and address ranges.
type prefixes []netip.Prefix

func (p *prefixes) String() string {
	var b strings.Builder
	for i, prefix := range *p {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(prefix.String())
	}
	return b.String()
}

// Set replaces the list.
func (p *prefixes) Set(list string) error {
	*p = nil
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if addr, err := netip.ParseAddr(text); err == nil {
			*p = append(*p, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("%q is neither an address nor a range such as 10.0.0.0/8", text)
		}
		*p = append(*p, prefix)
	}
	return nil
}
