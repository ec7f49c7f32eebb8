package routes

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

var chiRouter = router{"chi", "Mux.ServeHTTP; hosts by a map of routers", byHost(func() table {
	mux := chi.NewMux()
	mux.NotFound(func(_ http.ResponseWriter, r *http.Request) { reached(r, -1) })
	return &handlerTable{mux, func(r route) {
		mux.Get(r.path+"/*", func(_ http.ResponseWriter, request *http.Request) { reached(request, r.n) })
	}}
})}

// A handlerTable is that of a router that can only be asked as a handler. Its
// answer to what it does not know has to be reached with -1.
type handlerTable struct {
	handler http.Handler
	add     func(route)
}

func (t *handlerTable) put(r route) error {
	t.add(r)
	return nil
}

func (t *handlerTable) lookup(a *asker, host, path string) bool {
	t.handler.ServeHTTP(a.nobody, a.ask(host, path))
	return a.n >= 0
}
