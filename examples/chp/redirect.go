package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// A redirected answer rewrites the Location of a redirect to the target's own
// host, so that it names the host that the client sees.
type redirected struct {
	http.ResponseWriter
	options *options
	host    string // that the client asked for
	target  string
}

func (w *redirected) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *redirected) WriteHeader(status int) {
	switch status {
	case http.StatusCreated, http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if locations := w.Header()["Location"]; len(locations) == 1 {
			locations[0] = w.rewritten(locations[0])
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *redirected) rewritten(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || withoutDefaultPort(u) != hostOf(w.target) {
		return location
	}
	if w.options.autoRewrite {
		u.Host = w.host
	}
	if w.options.protocolRewrite != "" {
		u.Scheme = w.options.protocolRewrite
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String()
}

// redirect redirects HTTP requests to the same URL by HTTPS.
func (o *options) redirect(w http.ResponseWriter, r *http.Request) {
	if r.Host == "" {
		http.Error(w, fmt.Sprintf("This server is HTTPS-only on port %s, but an HTTP request was made and the host could not be determined from the request.",
			o.redirectTo), http.StatusBadRequest)
		return
	}
	target := r.URL.RequestURI()
	if target[0] != '/' { // such as GET http:@evil.example/, where the host would become a user name
		http.Error(w, "The request target must begin with a slash.", http.StatusBadRequest)
		return
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if len(host) > 2 && host[0] == '[' {
		host = host[1 : len(host)-1]
	}
	to := url.URL{Scheme: "https", Host: net.JoinHostPort(host, o.redirectTo)}
	to.Host = withoutDefaultPort(&to)
	w.Header().Set("Location", to.String()+target)
	w.WriteHeader(http.StatusMovedPermanently)
}
