package main

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch"
)

const (
	maxErrorPage     = 4 << 20          // bytes
	errorPageTimeout = 10 * time.Second // for the whole page
)

// An errorPages answers in place of upstreams that fail, with a page of
// --error-target, of --error-path, or its own.
type errorPages struct {
	target *url.URL // nil: none
	path   string
	client *http.Client
	log    *slog.Logger
}

func newErrorPages(o *options, log *slog.Logger) *errorPages {
	p := &errorPages{target: o.errorTarget, path: o.errorPath, log: log}
	if p.target != nil {
		p.client = &http.Client{
			Transport:     transportTo(p.target, &o.clientSSL),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return p
}

// handle is the ErrorHandler of the Proxy. If an upstream cannot be reached, or
// does not answer in time, the status is 503.
func (p *errorPages) handle(w http.ResponseWriter, r *http.Request, e *slipswitch.Error) {
	status := e.Status
	if status == http.StatusBadGateway || status == http.StatusGatewayTimeout {
		status = http.StatusServiceUnavailable
	}
	switch {
	case isUpgrade(r):
		w.WriteHeader(status) // a script gets no page
	case p.target != nil:
		p.fetch(w, r, status)
	case p.path != "":
		p.read(w, status)
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		page.Execute(w, struct{ Title, Text string }{fmt.Sprint(status, ": ", http.StatusText(status)), texts[status]})
	}
}

// fetch copies the page of the error target.
func (p *errorPages) fetch(w http.ResponseWriter, r *http.Request, status int) {
	ctx, cancel := context.WithTimeout(r.Context(), errorPageTimeout)
	defer cancel()
	response, body, err := p.ask(ctx, r.RequestURI, status)
	if err != nil {
		p.log.Error("no custom error page", "status", status, "error", err)
		plain(w, status)
		return
	}
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		if values := response.Header[name]; values != nil {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(status)
	w.Write(body)
}

func (p *errorPages) ask(ctx context.Context, asked string, status int) (*http.Response, []byte, error) {
	u := *p.target
	if u.Scheme == "unix" {
		u.Scheme, u.Host = "http", "localhost"
	}
	query := u.Query()
	query.Set("url", asked)
	u.RawQuery = query.Encode()
	u.RawPath, u.Path = "", strings.TrimSuffix(u.Path, "/")+"/"+strconv.Itoa(status)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorPage+1))
	if err == nil && len(body) > maxErrorPage {
		err = fmt.Errorf("the page has more than %d bytes", maxErrorPage)
	}
	return response, body, err
}

// read serves a page from the directory.
func (p *errorPages) read(w http.ResponseWriter, status int) {
	body, err := os.ReadFile(filepath.Join(p.path, strconv.Itoa(status)+".html"))
	if err != nil {
		body, err = os.ReadFile(filepath.Join(p.path, "error.html"))
	}
	if err != nil {
		p.log.Error("no error page", "status", status, "error", err)
		plain(w, status)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	io.Copy(w, bytes.NewReader(body))
}

func plain(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, http.StatusText(status))
}

var texts = map[int]string{
	http.StatusNotFound:           "No service is registered at this URL",
	http.StatusServiceUnavailable: "The upstream service is unavailable",
}

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>{{.Title}}</title>
<h1>{{.Title}}</h1>
{{with .Text}}<p>{{.}}</p>
{{end}}</html>
`))
