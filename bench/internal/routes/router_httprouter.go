package routes

import (
	"net/http"

	"github.com/julienschmidt/httprouter"
)

var httprouterRouter = router{"httprouter", "Router.Lookup; hosts by a map of routers", byHost(func() table { return &httprouterTable{httprouter.New()} })}

type httprouterTable struct{ *httprouter.Router }

func (t *httprouterTable) put(r route) error {
	t.GET(r.path+"/*rest", func(_ http.ResponseWriter, request *http.Request, _ httprouter.Params) { reached(request, r.n) })
	return nil
}

func (t *httprouterTable) lookup(a *asker, host, path string) bool {
	handle, _, _ := t.Lookup("GET", path)
	if handle == nil {
		return false
	}
	handle(a.nobody, a.request, nil)
	return true
}
