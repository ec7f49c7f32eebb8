package slipswitch

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// An Upstream is a server that a route leads to. As JSON it is its URL, a text, or
// an object: {"url": "http://10.0.0.7:8080", "weight": 2}.
type Upstream struct {
	// URL is "unix:/run/ide.sock", or "http://host:port", "https://host:port" or
	// "h2c://host:port" with an optional path, which is put before the path that is
	// forwarded. h2c is HTTP/2 without TLS, as for gRPC; upgrades use HTTP/1.1.
	//
	// The host may be a template: {1} is the segment of the request's path after the
	// route's path, {host.1} is the label that the * of the route's host matches. In
	// "https://{host.1}.ide.svc.cluster.local.:{port:8080,3000-3999}", {port} is the
	// number before that label (3000-ide-7.example.com) if the list has it, or else
	// the first of the list. A captured value must be one DNS label that cannot be
	// read as an address, or the request is answered with 404. The name must end in
	// a fixed and absolute domain, or list what it may capture:
	// "http://{1:web,ide-*}:8080". StripPath removes {1}, too. See also
	// Proxy.TemplateAddresses.
	URL string `json:"url"`

	// Weight is the upstream's share of the requests, in relation to the weights of
	// the route's other upstreams. Zero means 1.
	Weight int `json:"weight,omitempty"`
}

// To returns an upstream for each URL. An invalid URL is an error when the route
// is put.
func To(urls ...string) []Upstream {
	upstreams := make([]Upstream, len(urls))
	for i, url := range urls {
		upstreams[i].URL = url
	}
	return upstreams
}

// MarshalJSON writes the URL as a text, or all fields as an object if there are
// others.
func (u Upstream) MarshalJSON() ([]byte, error) {
	if u == (Upstream{URL: u.URL}) {
		return json.Marshal(u.URL)
	}
	return json.Marshal(plainUpstream(u))
}

type plainUpstream Upstream // Upstream without its methods

// UnmarshalJSON reads a text, or an object.
func (u *Upstream) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, &u.URL)
	}
	return unmarshalStrict(data, (*plainUpstream)(u), "upstream")
}

// A scheme says how an upstream is spoken to.
type scheme uint8

const (
	schemeHTTP scheme = iota
	schemeHTTPS
	schemeH2C  // HTTP/2 without TLS
	schemeUnix // HTTP over a Unix socket
)

var schemes = []string{"http", "https", "h2c", "unix"} // by scheme

// A target is an upstream taken apart.
type target struct {
	scheme   scheme
	captures captures
	weight   uint16
	addr     string        // host and port to dial, the path of a Unix socket, or a template's text
	path     string        // put before the path of requests, without a trailing slash; mostly ""
	template *hostTemplate // nil: none
}

// String returns the target as a URL without path.
func (t *target) String() string {
	if t.scheme == schemeUnix {
		return "unix:" + t.addr
	}
	return schemes[t.scheme] + "://" + t.addr
}

// captures returns what the leaf's templates take out of a request: all of
// them the same.
func (l *leaf) captures() captures {
	if len(l.upstreams.targets) == 0 {
		return 0
	}
	return l.upstreams.targets[0].captures
}

// parse completes "upstream must …" in its error.
func (u Upstream) parse() (target, error) {
	name, rest, found := strings.Cut(u.URL, ":")
	scheme := scheme(slices.Index(schemes, strings.ToLower(name)))
	switch {
	case !found || int(scheme) >= len(schemes):
		return target{}, errors.New("must begin with http://, https://, h2c:// or unix:/")
	case scheme == schemeUnix:
		return parseUnix(rest)
	}
	authority, base, ok := cutAuthority(rest)
	if strings.ContainsAny(base, "{}") {
		return target{}, errors.New("must have a path without braces: only its host and port can be a template (a brace itself is %7B or %7D)")
	}
	if ok && strings.ContainsAny(authority, "{}") {
		t, err := Upstream{URL: name + "://h" + base}.parse()
		if err != nil {
			return target{}, err
		}
		t.template, t.captures, err = parseTemplate(authority, defaultPort(scheme))
		t.addr = authority
		return t, err
	}
	parsed, err := url.Parse(u.URL)
	if err != nil {
		return target{}, errors.New("must be a URL such as http://10.0.0.7:8080")
	}
	switch {
	case parsed.Opaque != "" || parsed.Hostname() == "":
		return target{}, errors.New("must name a host, as http://10.0.0.7:8080 does")
	case parsed.User != nil:
		return target{}, errors.New("must not contain a user or password")
	case parsed.RawQuery != "" || parsed.ForceQuery || parsed.Fragment != "" || strings.HasSuffix(u.URL, "#"):
		return target{}, errors.New("must not contain a query or fragment")
	}
	if _, _, err := canon.ScanHost(parsed.Host); err != nil {
		return target{}, errors.New("must have a valid host: it " + err.Error())
	}
	port := cmp.Or(parsed.Port(), defaultPort(scheme))
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return target{}, errors.New("must have a port from 1 to 65535")
	}
	base = strings.TrimSuffix(parsed.EscapedPath(), "/")
	if base != "" {
		if scan, err := canon.ScanPath(base); err != nil {
			return target{}, errors.New("must have a valid path: it " + err.Error())
		} else if scan.Dotted || strings.HasPrefix(base, "//") {
			return target{}, errors.New("must have a path that does not begin with // and has no dot segments")
		}
	}
	addr := net.JoinHostPort(parsed.Hostname(), port)
	if strings.HasSuffix(u.URL, addr) {
		addr = u.URL[len(u.URL)-len(addr):] // not a string of its own
	}
	return target{scheme: scheme, addr: addr, path: base}, nil
}

// cutAuthority splits what follows a scheme's colon.
func cutAuthority(rest string) (authority, path string, ok bool) {
	rest, ok = strings.CutPrefix(rest, "//")
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		return rest[:i], rest[i:], ok
	}
	return rest, "", ok
}

func defaultPort(s scheme) string {
	if s == schemeHTTPS {
		return "443"
	}
	return "80"
}

func parseUnix(name string) (target, error) {
	name, _ = strings.CutPrefix(name, "//")
	if !path.IsAbs(name) || path.Clean(name) != name || len(name) > maxSocketName || strings.ContainsAny(name, "\x00{}") {
		return target{}, fmt.Errorf("must have the absolute path of a socket after unix:, at most %d bytes, with neither dot segments nor braces", maxSocketName)
	}
	return target{scheme: schemeUnix, addr: name}, nil
}

const maxWeight = 1000

const maxSocketName = 107 // Linux's, without the NUL

// parseTargets parses the upstreams of a route, and tells what is wrong.
func parseTargets(r *Route, wrong func(field, value, want string)) []target {
	targets := make([]target, 0, len(r.Upstreams))
	for i, u := range r.Upstreams {
		t, err := u.parse()
		t.weight = uint16(max(u.Weight, 1))
		switch {
		case err != nil:
		case u.Weight < 0 || u.Weight > maxWeight:
			err = fmt.Errorf("must have a weight from 0 to %d", maxWeight)
		case t.captures&captureSegment != 0 && r.Exact:
			err = errors.New("must not use {1} on an exact route: no segment follows its path")
		case t.captures&captureLabel != 0 && !strings.HasPrefix(r.Host, "*."):
			err = errors.New("must not use {host.1} unless the route's host has a label for it, as *.example.com has")
		case len(targets) > 0 && t.captures != targets[0].captures:
			err = errors.New("must capture the same as the route's other upstreams")
		}
		if err != nil {
			wrong("upstreams["+strconv.Itoa(i)+"]", u.URL, err.Error())
			continue
		}
		targets = append(targets, t)
	}
	return targets
}
