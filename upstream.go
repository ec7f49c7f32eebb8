package slipswitch

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// An Upstream is where a route leads. As JSON it is its URL, a text.
type Upstream struct {
	// URL is "http://host:port" or "https://host:port", with an optional path
	// that is put in front of what is forwarded.
	URL string `json:"url"`
}

// To returns an upstream for each URL. A bad one is an error when the route is
// put.
func To(urls ...string) []Upstream {
	upstreams := make([]Upstream, len(urls))
	for i, url := range urls {
		upstreams[i].URL = url
	}
	return upstreams
}

// MarshalJSON writes the URL as a text.
func (u Upstream) MarshalJSON() ([]byte, error) { return json.Marshal(u.URL) }

// UnmarshalJSON reads a text, or an object with the field url.
func (u *Upstream) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, &u.URL)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	type plainUpstream Upstream
	return decoder.Decode((*plainUpstream)(u))
}

// A target is an upstream taken apart.
type target struct {
	secure bool   // https
	addr   string // host and port to dial
	path   string // put in front, without a trailing slash; mostly ""
}

// String returns the target as a URL without path.
func (t *target) String() string { return t.scheme() + "://" + t.addr }

func (t *target) scheme() string {
	if t.secure {
		return "https"
	}
	return "http"
}

// parse completes "upstream must …" in its error.
func (u Upstream) parse() (target, error) {
	parsed, err := url.Parse(u.URL)
	if err != nil {
		return target{}, errors.New("must be a URL such as http://10.0.0.7:8080")
	}
	switch {
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return target{}, errors.New("must begin with http:// or https://")
	case parsed.Opaque != "" || parsed.Hostname() == "":
		return target{}, errors.New("must name a host, as http://10.0.0.7:8080 does")
	case parsed.User != nil:
		return target{}, errors.New("must not contain a user or password")
	case parsed.RawQuery != "" || parsed.ForceQuery || parsed.Fragment != "" || strings.HasSuffix(u.URL, "#"):
		return target{}, errors.New("must not contain a query or fragment")
	}
	if _, _, err := scanHost(parsed.Host); err != nil {
		return target{}, errors.New("must have a valid host: it " + err.Error())
	}
	port := parsed.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[parsed.Scheme]
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return target{}, errors.New("must have a port from 1 to 65535")
	}
	path := strings.TrimSuffix(parsed.EscapedPath(), "/")
	if path != "" {
		if scan, err := scanPath(path); err != nil {
			return target{}, errors.New("must have a valid path: it " + err.Error())
		} else if scan.dotted || strings.HasPrefix(path, "//") {
			return target{}, errors.New("must have a path without // in front and without the segments . and ..")
		}
	}
	addr := net.JoinHostPort(parsed.Hostname(), port)
	if strings.HasSuffix(u.URL, addr) {
		addr = u.URL[len(u.URL)-len(addr):] // not a string of its own
	}
	return target{parsed.Scheme == "https", addr, path}, nil
}

// parseTargets parses the upstreams of a route, and tells what is wrong.
func parseTargets(r *Route, wrong func(field, value, want string)) []target {
	targets := make([]target, 0, len(r.Upstreams))
	for i, u := range r.Upstreams {
		t, err := u.parse()
		if err != nil {
			wrong("upstreams["+strconv.Itoa(i)+"]", u.URL, err.Error())
			continue
		}
		targets = append(targets, t)
	}
	return targets
}
