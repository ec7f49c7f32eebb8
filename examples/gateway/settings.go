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

// flags returns the flags that set them.
func (s *settings) flags() *flag.FlagSet {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error is told once
	flags.Usage = func() {}
	flags.StringVar(&s.listen, "listen", "", "`address` to serve on (default \":8080\", with -demo \"127.0.0.1:8080\")")
	flags.StringVar(&s.admin, "admin", "127.0.0.1:8081", "`address` of the admin API, never one that serves workspaces, or unix:PATH; none if empty")
	flags.Var(&s.adminHosts, "admin-hosts", "`names` besides localhost and IP addresses that the admin API is asked under, with commas between, such as gateway.internal; * is any")
	flags.StringVar(&s.health, "health", "", "`address` that answers /livez and /readyz and nothing else, for probes, or unix:PATH; the admin API answers them, too")
	flags.StringVar(&s.token, "admin-token", "", "`token` that the admin API asks for; set it in the environment, for all can read a command line")
	flags.StringVar(&s.tokenFile, "admin-token-file", "", "`file` with that token, or with several, each on a line behind its holder's name; made, for its owner only, if it does not exist; read again at SIGHUP (default \"slipswitch/admin-token\" in the user's configuration directory)")
	flags.Var(&s.trusted, "trusted-proxies", "`addresses` and ranges of the proxies in front, whose forwarded headers are believed, with commas between")
	flags.Var(dataFile{&s.stores}, "data", "`file` that routes are kept in: short for -store bolt:FILE. While another process has it, that is waited for, up to -drain-delay and -drain-window")
	flags.Var(&s.stores, "store", "where routes come from: memory, bolt:FILE, file:DIRECTORY or etcd:URL[,URL…][?OPTIONS][#PREFIX], with the options ca=FILE, cert=FILE&key=FILE and user=NAME&password-file=FILE; the admin API writes to the first `store` named. None: routes end with the process")
	flags.StringVar(&s.name, "name", hostname(), "this gateway's `name` among those that share a store")
	flags.Var((*period)(&s.maxStale), "max-stale", "`time` to go on with routes whose store is out of reach, where addresses are given to others in the meantime; for ever if 0")
	flags.Var((*count)(&s.limits.Requests), "max-requests", "`number` of requests that may be in progress; more are answered with 503 (0: 16384, or half of the descriptors if that is less)")
	flags.Var((*count)(&s.limits.RequestsPerRoute), "max-requests-per-route", "`number` of them at one host and path (0: half of -max-requests)")
	flags.Var((*count)(&s.limits.RequestsPerClient), "max-requests-per-client", "`number` of them of one client address, or IPv6 network of 64 bits (0: a quarter of -max-requests)")
	flags.Var((*count)(&s.streams), "max-streams", "`number` of requests that one HTTP/2 connection may have in progress (0: 100)")
	flags.Var((*count)(&s.headerBytes), "max-header-bytes", "`number` of bytes that a request's line and header may have; more are answered with 431 (0: 65536)")
	flags.Var((*count)(&s.limits.Tunnels), "max-tunnels", "`number` of tunnels that there may be; more are answered with 503 (0: as many as descriptors allow)")
	flags.Var((*count)(&s.limits.TunnelsPerRoute), "max-tunnels-per-route", "`number` of them at one host and path (0: no limit)")
	flags.Var((*count)(&s.limits.TunnelsPerClient), "max-tunnels-per-client", "`number` of them of one client address, or IPv6 network of 64 bits (0: no limit)")
	flags.Var((*count)(&s.limits.Handshakes), "max-handshakes", "`number` of upgrades that may wait at a time for their answer (0: no limit)")
	flags.Var((*period)(&s.drainDelay), "drain-delay", "`time` to go on serving after SIGTERM, not ready, until load balancers have noticed")
	flags.Var((*period)(&s.drainWindow), "drain-window", "`time` that open requests and tunnels may take after that to end; tunnels are closed one after the other over three quarters of it")
	flags.StringVar(&s.certFile, "tls-cert", "", "`file` with the certificate chain in PEM; read again when it changes, and at SIGHUP")
	flags.StringVar(&s.keyFile, "tls-key", "", "`file` with the certificate's key in PEM")
	flags.StringVar(&s.logFormat, "log-format", "text", "text or json")
	flags.TextVar(&s.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error; the end of a tunnel is info")
	flags.StringVar(&s.cpuProfile, "cpuprofile", "", "`file` for a profile of the processor, from start to end")
	flags.BoolVar(&s.demo, "demo", false, "serve two workspaces to try, and a page to watch them")
	return flags
}

// readSettings reads the environment, then the flags, which win. It prints what
// -help asks for, and returns flag.ErrHelp then.
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
		fmt.Fprintf(stdout, "\nEach flag is read from the environment, too: -drain-delay from %s.\n", envName("drain-delay"))
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: see gateway -help", err)
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("what is %q? there are only flags", flags.Arg(0))
	case (s.certFile == "") != (s.keyFile == ""):
		return nil, errors.New("-tls-cert and -tls-key go together")
	case s.token != "" && s.tokenFile != "":
		return nil, errors.New("-admin-token and -admin-token-file exclude each other")
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
			s.listen = "127.0.0.1:8080" // whoever may see the demo may type in it
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

// hostname names this gateway if nobody does.
func hostname() string {
	name, _ := os.Hostname()
	return name
}

// period is a flag of how long something takes.
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

// count is a flag of how many there may be; what 0 means, the flag's usage says.
type count int

func (c *count) String() string { return strconv.Itoa(int(*c)) }

func (c *count) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("%q must be a number from 0 on", text)
	}
	*c = count(n)
	return nil
}

// names is a flag of host names.
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

// prefixes is a flag of addresses and address ranges.
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
