package routes

import "github.com/gin-gonic/gin"

var ginRouter = router{"gin", "Engine.ServeHTTP; hosts by a map of engines", byHost(func() table {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.NoRoute(func(c *gin.Context) { reached(c.Request, -1) })
	return &handlerTable{engine, func(r route) {
		engine.GET(r.path+"/*rest", func(c *gin.Context) { reached(c.Request, r.n) })
	}}
})}
