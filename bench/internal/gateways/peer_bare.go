package gateways

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// barePeer is what one writes by hand: httputil.ReverseProxy over a map under
// an RWMutex. Its Transport has the pools that slipswitch's has.
var barePeer = &peer{
	name:    "bare",
	version: func(context.Context) (string, error) { return "this toolchain's httputil.ReverseProxy", nil },
	start: func(ctx context.Context, s setup) (*gateway, error) {
		cmd, err := role("bare", s.addr, s.admin)
		if err != nil {
			return nil, err
		}
		g, err := startCommand(ctx, s.addr, s.dir, cmd)
		if err != nil {
			return nil, err
		}
		routes := newAPI(g, s.admin)
		g.change = func(ctx context.Context, put, deleted []string) error {
			var lines strings.Builder
			for _, path := range put {
				lines.WriteString(path + " " + s.backend.address(path) + "\n")
			}
			for _, path := range deleted {
				lines.WriteString(path + "\n")
			}
			return routes.call(ctx, "POST", "/", lines.String())
		}
		if err := g.change(ctx, s.routes, nil); err != nil {
			g.stop()
			return nil, err
		}
		return g, nil
	},
}

// lockedMap leads from a path's first two segments to where the route leads.
type lockedMap struct {
	mu sync.RWMutex
	m  map[string]*url.URL
}

func (l *lockedMap) lookup(path string) *url.URL {
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		if j := strings.IndexByte(path[i+2:], '/'); j >= 0 {
			path = path[:i+2+j]
		}
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.m[path]
}

// ServeHTTP changes the map: a line "PATH ADDRESS" puts, a line "PATH" deletes.
func (l *lockedMap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		path, address, put := strings.Cut(lines.Text(), " ")
		l.mu.Lock()
		if put {
			l.m[path] = &url.URL{Scheme: "http", Host: address}
		} else {
			delete(l.m, path)
		}
		l.mu.Unlock()
	}
}

func serveBare(addr, admin string) error {
	routes := &lockedMap{m: map[string]*url.URL{}}
	failed := make(chan error, 2)
	l, err := net.Listen("tcp", admin)
	if err != nil {
		return err
	}
	go func() { failed <- http.Serve(l, routes) }()
	type target struct{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(r.In.Context().Value(target{}).(*url.URL))
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			DisableCompression:  true,
			MaxIdleConns:        4096,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     90 * time.Second,
		},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := routes.lookup(r.URL.Path)
		if to == nil {
			http.NotFound(w, r)
			return
		}
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), target{}, to)))
	})
	go func() { failed <- http.ListenAndServe(addr, handler) }()
	return <-failed
}
