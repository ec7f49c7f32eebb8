package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// parseTarget parses the URL of a target: http:, https:, or http+unix: with the
// percent-encoded path of a socket in place of the host.
func parseTarget(s string) (*url.URL, error) {
	for _, scheme := range []string{"http+unix://", "unix+http://"} {
		rest, ok := strings.CutPrefix(s, scheme)
		if !ok {
			continue
		}
		socket, path, _ := strings.Cut(rest, "/")
		socket, err := url.PathUnescape(socket)
		if err != nil || !strings.HasPrefix(socket, "/") {
			return nil, errors.New("http+unix:// must be followed by the percent-encoded path of a socket, such as %2Frun%2Fsocket")
		}
		u, err := url.Parse("http://localhost/" + path)
		if err != nil {
			return nil, errors.New("it must be a URL")
		}
		u.Scheme, u.Host = "unix", socket
		return u, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("it must be a URL such as http://127.0.0.1:8080")
	}
	return u, nil
}

// hostOf returns the Host that requests to a URL have by default: with the port,
// unless it is the default of the scheme.
func hostOf(upstream string) string {
	u, err := url.Parse(upstream)
	if err != nil || u.Host == "" {
		return "localhost" // a Unix socket
	}
	return withoutDefaultPort(u)
}

func withoutDefaultPort(u *url.URL) string {
	if port := u.Port(); u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		return strings.ToLower(strings.TrimSuffix(u.Host, ":"+port))
	}
	return strings.ToLower(u.Host)
}

// transportTo returns a transport for one target only.
func transportTo(u *url.URL, secure *clientTLS) *http.Transport {
	t := &http.Transport{TLSClientConfig: secure.config.Clone(), DisableCompression: true, MaxIdleConnsPerHost: 8}
	if u.Scheme == "unix" {
		socket := u.Host
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
	}
	return t
}
