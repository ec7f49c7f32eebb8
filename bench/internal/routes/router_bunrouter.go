package routes

import (
	"net/http"

	"github.com/uptrace/bunrouter"
)

var bunrouterRouter = router{"bunrouter", "Router.ServeHTTP; hosts by a map of routers", byHost(func() table {
	mux := bunrouter.New(bunrouter.WithNotFoundHandler(func(_ http.ResponseWriter, r bunrouter.Request) error {
		reached(r.Request, -1)
		return nil
	}))
	return &handlerTable{mux, func(r route) {
		mux.GET(r.path+"/*rest", func(_ http.ResponseWriter, request bunrouter.Request) error {
			reached(request.Request, r.n)
			return nil
		})
	}}
})}
