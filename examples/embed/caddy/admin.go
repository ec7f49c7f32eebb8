package caddyslipswitch

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(new(adminAPI)) }

// adminAPI serves /slipswitch/NAME/… beside Caddy's own admin API, which controls
// access.
type adminAPI struct{}

func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.slipswitch", New: func() caddy.Module { return new(adminAPI) }}
}

func (a *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/slipswitch/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

func (*adminAPI) serve(w http.ResponseWriter, r *http.Request) error {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/slipswitch/"), "/")
	var rest http.Handler
	pool.Range(func(key, value any) bool {
		if key == name {
			s := value.(*shared)
			s.mu.Lock()
			rest = s.rest
			s.mu.Unlock()
		}
		return rest == nil
	})
	if rest == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("there is no slipswitch with the name " + name)}
	}
	http.StripPrefix("/slipswitch/"+name, rest).ServeHTTP(w, r)
	return nil
}

var _ caddy.AdminRouter = (*adminAPI)(nil)
