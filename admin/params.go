package admin

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
)

// parameters returns the query of a request. Each parameter must be one of known,
// and only label may be repeated. Each needs a value unless mayBeEmpty lists it:
// a misspelt filter, or a script's unset variable, must not mean "all".
func parameters(r *http.Request, known ...string) (url.Values, *problem) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("query", r.URL.RawQuery, "must be parameters with & between them, percent-encoded")
	}
	for name, values := range query {
		if !slices.Contains(known, name) {
			return nil, badRequest("parameter", name, "must be one of "+strings.Join(known, ", "))
		}
		if len(values) > 1 && name != "label" {
			return nil, badRequest(name, values[1], "must be given only once")
		}
		if slices.Contains(values, "") && !slices.Contains(mayBeEmpty, name) {
			return nil, badRequest(name, "", "must have a value, or be left out")
		}
	}
	return query, nil
}

// mayBeEmpty are the parameters that may have an empty value: host (routes for
// any host), owner (the one without a name), after (from the first), and reason
// (none of the caller's).
var mayBeEmpty = []string{"host", "owner", "after", "reason"}

// address returns the key in the parameters host, path and exact.
func address(query url.Values) (slipswitch.Key, *problem) {
	key := slipswitch.Key{Host: query.Get("host"), Path: query.Get("path")}
	if !strings.HasPrefix(key.Path, "/") {
		return key, badRequest("path", key.Path, "must be the path of a route, and begin with /")
	}
	if exact := query.Get("exact"); query.Has("exact") {
		var err error
		if key.Exact, err = strconv.ParseBool(exact); err != nil {
			return key, badRequest("exact", exact, "must be true or false")
		}
	}
	return key, nil
}

// pageLimit returns the greatest number of items on a page.
func pageLimit(query url.Values) (int, *problem) {
	if !query.Has("limit") {
		return 100, nil
	}
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 1 || limit > 1000 {
		return 0, badRequest("limit", query.Get("limit"), "must be a number from 1 to 1000")
	}
	return limit, nil
}

// oneOf returns a parameter that must be one of the values. Empty means that it
// is left out.
func oneOf[V ~string](query url.Values, name string, values ...V) (V, *problem) {
	value := V(query.Get(name))
	if value != "" && !slices.Contains(values, value) {
		return "", badRequest(name, string(value), fmt.Sprintf("must be one of %q", values))
	}
	return value, nil
}

// addressFilter selects by the parameter client or peer: an address in any
// spelling, or what reports show instead: unix, unknown, or the identifier that a
// trusted proxy uses (RFC 7239 §6.3).
func addressFilter(query url.Values, name string) (func(address string) bool, *problem) {
	text := query.Get(name)
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	switch {
	case text == "":
		return func(string) bool { return true }, nil
	case err == nil:
		text = addr.Unmap().String()
	case text != "unix" && text != "unknown" && text[0] != '_':
		return nil, badRequest(name, text, "must be an address such as 10.0.0.7, without port, or unix, unknown or an identifier such as _hidden")
	}
	return func(address string) bool { return address == text }, nil
}

// upstreamFilter selects the URLs of upstreams by the parameter upstream.
func upstreamFilter(query url.Values) (func(url string) bool, *problem) {
	text := query.Get("upstream")
	_, authority, ok := strings.Cut(text, "://")
	if !ok {
		authority = text
	}
	if text != "" && !strings.HasPrefix(text, "unix:") && (authority == "" || strings.ContainsAny(authority, "/?#@ ")) {
		return nil, badRequest("upstream", text, "must be a URL without path, or host:port, as http://10.0.0.7:8080 or 10.0.0.7:8080")
	}
	return func(url string) bool { return text == "" || url == text || strings.HasSuffix(url, "://"+text) }, nil
}

// A keyFilter selects keys by the parameters host and path.
type keyFilter struct {
	anyHost bool
	host    string
	below   string // a canonical path without trailing slash
}

func newKeyFilter(query url.Values) (keyFilter, *problem) {
	f := keyFilter{anyHost: !query.Has("host")}
	key, err := slipswitch.Key{Host: query.Get("host"), Path: cmp.Or(query.Get("path"), "/")}.Canonical()
	if err != nil {
		wrong, _ := errors.AsType[*slipswitch.FieldError](err)
		return f, badRequest(wrong.Field, wrong.Value, wrong.Want)
	}
	f.host, f.below = key.Host, strings.TrimSuffix(key.Path, "/")
	return f, nil
}

func (f keyFilter) matches(k slipswitch.Key) bool {
	if !f.anyHost && f.host != k.Host {
		return false
	}
	if f.below == "" {
		return true
	}
	k, err := k.Canonical()
	rest, ok := strings.CutPrefix(k.Path, f.below)
	return err == nil && ok && (rest == "" || rest[0] == '/')
}

// isoLayouts are the accepted forms of ISO 8601. A time without a zone is UTC. Go
// accepts a fraction of a second in each of them.
var isoLayouts = []string{
	"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05Z07", "2006-01-02T15:04:05",
	"2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02", "2006-01", "2006",
	"20060102T150405Z0700", "20060102T150405", "20060102",
}

// parseTime parses a time of ISO 8601.
func parseTime(text string) (time.Time, bool) {
	for _, layout := range isoLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// lastActive returns the time of an entry's last activity as shown: to the
// millisecond.
func lastActive(e slipswitch.Entry) time.Time { return e.LastActive().UTC().Truncate(time.Millisecond) }
