package routes

import "github.com/labstack/echo/v4"

var echoRouter = router{"echo", "Router.Find; hosts by a map of routers", byHost(func() table { return &echoTable{echo: echo.New()} })}

type echoTable struct {
	echo *echo.Echo
}

func (t *echoTable) put(r route) error {
	t.echo.GET(r.path+"/*", func(c echo.Context) error { reached(c.Request(), r.n); return nil })
	return nil
}

func (t *echoTable) lookup(a *asker, host, path string) bool {
	c := t.echo.AcquireContext()
	defer t.echo.ReleaseContext(c)
	c.Reset(a.request, nil)
	a.n = -1
	t.echo.Router().Find("GET", path, c)
	return c.Handler()(c) == nil && a.n >= 0
}
