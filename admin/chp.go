package admin

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/slipswitch/slipswitch"
)

// The REST API of configurable-http-proxy (CHP), as observed on 5.3.0: a view of
// the prefix routes of one owner. It differs from CHP in three points: every
// request gets an answer, the token is checked before the body is read, and an
// invalid target is refused when it is put.

// chpOwner is the owner of the routes.
const chpOwner = "chp"

const chpPrefix = "/api/routes"

// isCHP reports whether a path belongs to the API.
func isCHP(path string) bool {
	rest, ok := strings.CutPrefix(path, chpPrefix)
	return ok && (rest == "" || rest[0] == '/')
}

// chp answers all requests under /api/routes; rest is the rest of the path.
func (h *Handler) chp(w http.ResponseWriter, r *http.Request, rest string) *problem {
	methods := map[string]func(http.ResponseWriter, *http.Request, slipswitch.Key) *problem{
		"GET": h.chpGet, "POST": h.chpPost, "DELETE": h.chpDelete,
	}
	serve := methods[r.Method]
	if serve == nil {
		wrong := notAllowed(w, methods, "")
		wrong.Text = "Method not supported"
		return wrong
	}
	if r.Method == "GET" && (rest == "" || rest == "/") {
		return h.chpList(w, r)
	}
	key, err := h.chpKey(rest)
	if err != nil {
		return &problem{Status: http.StatusBadRequest, Text: err.Error()}
	}
	return serve(w, r, key)
}

// chpList writes routes while it iterates, since there may be a million.
func (h *Handler) chpList(w http.ResponseWriter, r *http.Request) *problem {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &problem{Status: http.StatusBadRequest, Text: "the query must be percent-encoded"}
	}
	datestamp := query.Get("inactive_since")
	if datestamp == "" {
		datestamp = query.Get("inactiveSince")
	}
	since, ok := parseTime(datestamp)
	if !ok && datestamp != "" {
		return &problem{Status: http.StatusBadRequest, Text: fmt.Sprintf("Invalid datestamp '%s' must be ISO8601.", datestamp)}
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriter(w)
	defer out.Flush()
	separator := "{"
	for e := range h.Router.Table().All() {
		path, ok := h.chpPath(e)
		if !ok || datestamp != "" && !lastActive(e).Before(since) {
			continue
		}
		name, _ := json.Marshal(path)
		out.WriteString(separator)
		out.Write(name)
		out.WriteString(":")
		out.Write(h.chpData(e))
		separator = ","
	}
	if separator == "{" {
		out.WriteString("{")
	}
	out.WriteString("}")
	return nil
}

func (h *Handler) chpGet(w http.ResponseWriter, r *http.Request, key slipswitch.Key) *problem {
	entry, ok := h.Router.Table().Of(chpOwner, key)
	if !ok {
		return &problem{Status: http.StatusNotFound}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(h.chpData(entry))
	return nil
}

func (h *Handler) chpPost(w http.ResponseWriter, r *http.Request, key slipswitch.Key) *problem {
	body, wrong := readBody(w, r, h.maxBody())
	if wrong != nil {
		return wrong
	}
	if err := checkJSON(body, false); err != nil {
		return &problem{Status: http.StatusBadRequest, Text: "Body not valid JSON: it " + err.Error()}
	}
	fields, _ := object(body)
	var target *string
	if json.Unmarshal(fields["target"], &target) != nil || target == nil {
		return &problem{Status: http.StatusBadRequest, Text: "Must specify 'target' as string"}
	}
	upstream, wrong := chpUpstream(*target)
	if wrong != nil {
		return wrong
	}
	delete(fields, "target")
	delete(fields, "last_activity") // clients cannot set it
	route := slipswitch.Route{Host: key.Host, Path: key.Path, Upstreams: slipswitch.To(upstream)}
	if len(fields) > 0 {
		route.Meta, _ = json.Marshal(fields)
	}
	if chpTarget(upstream) != *target {
		route.Labels = map[string]string{"target": *target} // clients compare it with their own
	}
	if h.CHPRoute != nil {
		h.CHPRoute(&route)
	}
	_, err := h.write(r.Context(), change{owner: &slipswitch.Owner{Name: chpOwner}, changes: []slipswitch.Change{{Put: &route}}})
	if err != nil {
		wrong := problemOf(err, "the route")
		if len(wrong.Invalid) > 0 {
			first := wrong.Invalid[0]
			if first.Field == "upstreams[0]" {
				first.Field = "target"
			}
			wrong.Text = badRequest(first.Field, first.Value, first.Want).Text
		}
		return wrong
	}
	if entry, ok := h.Router.Table().Of(chpOwner, key); ok {
		entry.Use() // a put counts as use, even if it changes nothing
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (h *Handler) chpDelete(w http.ResponseWriter, r *http.Request, key slipswitch.Key) *problem {
	if _, err := key.Canonical(); err != nil {
		return &problem{Status: http.StatusNotFound} // an invalid path has no route
	}
	_, err := h.write(r.Context(), change{
		owner: &slipswitch.Owner{Name: chpOwner}, changes: []slipswitch.Change{{Delete: &key}},
		check: func() *problem {
			if _, found := h.Router.Table().Of(chpOwner, key); !found {
				return &problem{Status: http.StatusNotFound}
			}
			return nil
		},
	})
	if err != nil {
		return problemOf(err, "the route")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// slashes are the spellings of a slash in a path of the API, whose clients may
// encode the whole path of a route as one segment.
var slashes = strings.NewReplacer("%2F", "/", "%2f", "/")

// chpKey returns the key for a percent-encoded path of the API. All spellings of
// a path become one, under which the route is kept.
func (h *Handler) chpKey(path string) (slipswitch.Key, error) {
	if plain, err := url.PathUnescape(path); err != nil || !utf8.ValidString(plain) {
		return slipswitch.Key{}, errors.New("the path must be percent-encoded UTF-8")
	}
	key := slipswitch.Key{Path: cmp.Or(slashes.Replace(path), "/")}
	if h.CHPHostRouting && key.Path != "/" {
		host, below, _ := strings.Cut(key.Path[1:], "/")
		key.Host, _ = url.PathUnescape(host)
		key.Path = "/" + below
	}
	if canonical, err := key.Canonical(); err == nil {
		return canonical, nil
	}
	return key, nil // the router will report errors in it
}

// chpPath returns the path under which the API shows an entry: unescaped, except
// for a slash inside a segment, which only other sources put. It returns false
// for entries that are not in the view.
func (h *Handler) chpPath(e slipswitch.Entry) (path string, ok bool) {
	key := e.Key()
	if e.Owner != chpOwner || key.Exact || key.Host != "" && !h.CHPHostRouting {
		return "", false
	}
	key, err := key.Canonical()
	if err != nil {
		return "", false
	}
	path, err = url.PathUnescape(strings.ReplaceAll(key.Path, "%2F", "%252F"))
	switch {
	case !h.CHPHostRouting:
	case path != "/":
		path = "/" + key.Host + path
	default:
		path = "/" + key.Host
	}
	return path, err == nil
}

// chpUpstream returns the upstream URL for a target. For a Unix socket the API
// has its percent-encoded path in place of the host.
func chpUpstream(target string) (string, *problem) {
	for _, scheme := range []string{"http+unix://", "unix+http://"} {
		socket, ok := strings.CutPrefix(target, scheme)
		if !ok {
			continue
		}
		path, err := url.PathUnescape(strings.TrimSuffix(socket, "/"))
		if err != nil || strings.Contains(strings.TrimSuffix(socket, "/"), "/") {
			return "", &problem{Status: http.StatusBadRequest, Text: fmt.Sprintf(
				"target %.64q must have a socket's percent-encoded path and nothing behind it, as http+unix://%%2Frun%%2Fsocket has", target)}
		}
		return "unix:" + path, nil
	}
	return target, nil
}

// chpTarget returns the target for an upstream URL.
func chpTarget(upstream string) string {
	if path, ok := strings.CutPrefix(upstream, "unix:"); ok {
		return "http+unix://" + url.PathEscape(path)
	}
	return upstream
}

// chpData returns the data of a route as it was put, with its last activity and,
// with host routing, its host.
func (h *Handler) chpData(e slipswitch.Entry) []byte {
	route := e.Route()
	var fields map[string]json.RawMessage
	if json.Unmarshal(route.Meta, &fields) != nil || fields == nil {
		fields = make(map[string]json.RawMessage, 2) // meta that other sources have put may not be an object
	}
	target, ok := route.Labels["target"]
	if !ok {
		target = chpTarget(route.Upstreams[0].URL)
	}
	fields["target"], _ = json.Marshal(target)
	if h.CHPHostRouting && route.Host != "" {
		fields["host"], _ = json.Marshal(route.Host)
	}
	fields["last_activity"], _ = json.Marshal(lastActive(e).Format("2006-01-02T15:04:05.000Z"))
	data, _ := json.Marshal(fields)
	return data
}
