package main

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
	"golang.org/x/net/http/httpguts"
)

// healthPath is served by the proxy itself.
const healthPath = "/_chp_healthz"

// A received has the header of a request before it was cleaned. As in
// configurable-http-proxy, every client's fields are trusted: a proxy before this
// one has to clean them, if necessary.
type received struct {
	header  http.Header
	upgrade bool
}

type receivedKey struct{}

// ServeHTTP serves the public server.
func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.RequestURI == healthPath {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"status":"OK"}`)
		return
	}
	said := &received{r.Header.Clone(), isUpgrade(r)}
	answer := &answer{ResponseWriter: w}
	if said.upgrade {
		s.counts.websockets.Inc()
	} else {
		s.counts.web.Inc()
	}
	s.find(r)
	defer func() {
		if answer.status != 0 && (!said.upgrade || answer.status >= 400) {
			s.counts.proxied(answer.status)
		}
	}()
	s.proxy.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), receivedKey{}, said)))
}

// isUpgrade reports whether a request asks for a WebSocket. Other upgrades are
// ignored, and the request is served.
func isUpgrade(r *http.Request) bool {
	return r.ProtoMajor == 1 && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") &&
		httpguts.HeaderValuesContainsToken(r.Header["Upgrade"], "websocket")
}

// find looks the route up before the Proxy does, if lookups are measured or the
// route's path is removed. To a request for exactly that path it adds a slash, so
// that the target gets "/" where the Proxy would redirect.
func (s *standIn) find(r *http.Request) {
	if !s.measured && !s.noIncludePrefix {
		return
	}
	start := time.Now()
	match, err := s.router.Lookup(r.Host, r.URL.EscapedPath())
	if s.measured {
		s.counts.timeFind(start)
	}
	if err != nil || !s.noIncludePrefix || strings.HasSuffix(match.Path, "/") {
		return
	}
	route := match.Key()
	if asked, err := (slipswitch.Key{Host: route.Host, Path: match.Path}).Canonical(); err == nil && asked == route {
		r.URL.Path += "/"
		if r.URL.RawPath != "" {
			r.URL.RawPath += "/"
		}
	}
}

// middleware runs between the match and the target. It sets the headers of the
// request, and observes the answer.
func (s *standIn) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		match, _ := slipswitch.MatchFrom(r.Context())
		said, _ := r.Context().Value(receivedKey{}).(*received)
		s.forwarded(r, said)
		maps.Copy(r.Header, s.customHeader)
		if s.autoRewrite || s.protocolRewrite != "" {
			if upstreams := match.Route().Upstreams; len(upstreams) > 0 { // none if another program has put it in the store
				w = &redirected{ResponseWriter: w, options: s.options, host: r.Host, target: upstreams[0].URL}
			}
		}
		answer := &answer{ResponseWriter: w}
		next.ServeHTTP(answer, r)
		if 200 <= answer.status && answer.status < 300 { // refusals and failures do not count as use
			s.use(match.Key())
		}
	})
}

// use notes a use of the route that stands at the key now.
func (s *standIn) use(key slipswitch.Key) {
	if s.measured {
		defer s.counts.timeActivity(time.Now())
	}
	if entry, ok := s.router.Table().At(key); ok {
		entry.Use()
	}
}

var portOfHost = regexp.MustCompile(`:(\d+)$`)

// between are the fields that the Proxy drops because they concern one
// connection, or a client may not set them.
var between = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Http2-Settings": true, "Proxy": true, "Host": true, "Content-Length": true,
}

// isOdd reports whether the Proxy drops a field whose name has the character.
func isOdd(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
}

// forwarded sets the X-Forwarded headers: the client's values, followed by the
// proxy's own.
func (s *standIn) forwarded(r *http.Request, said *received) {
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded-") {
			delete(r.Header, name)
		}
	}
	for name, values := range said.header {
		if r.Header[name] == nil && !between[name] && strings.IndexFunc(name, isOdd) < 0 &&
			!httpguts.HeaderValuesContainsToken(said.header["Connection"], name) || name == "X-Real-Ip" || name == "Forwarded" {
			r.Header[name] = values
		}
	}
	if s.noXForward {
		if said.header["X-Real-Ip"] == nil {
			delete(r.Header, "X-Real-Ip")
		}
		return
	}
	add := func(name, value string) {
		if before := strings.Join(r.Header[name], ", "); before != "" {
			value = before + "," + value
		}
		r.Header[name] = []string{value}
	}
	proto, port := "http", "80"
	if said.upgrade {
		proto = "ws"
	}
	if r.TLS != nil {
		proto, port = proto+"s", "443"
	}
	if digits := portOfHost.FindStringSubmatch(r.Host); digits != nil {
		port = digits[1]
	}
	if client, _, err := net.SplitHostPort(r.RemoteAddr); err == nil { // requests over a Unix socket have no address
		add("X-Forwarded-For", client)
	}
	add("X-Forwarded-Port", port)
	add("X-Forwarded-Proto", proto)
	if r.Header["X-Forwarded-Host"] == nil {
		r.Header["X-Forwarded-Host"] = []string{r.Host}
	}
}

// An answer remembers its status.
type answer struct {
	http.ResponseWriter
	status int // 0: none
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	if status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}
