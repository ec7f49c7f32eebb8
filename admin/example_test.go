package admin_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

func ExampleHandler() {
	var router slipswitch.Router
	proxy := &slipswitch.Proxy{Router: &router}
	router.Validate = proxy.Validate                                                          // what it cannot do is refused when it is put
	api := httptest.NewServer(&admin.Handler{Router: &router, Proxy: proxy, Token: "s3cret"}) // on 127.0.0.1
	defer api.Close()

	r, err := http.NewRequest("POST", api.URL+"/v1/batch", strings.NewReader(
		`{"changes":[{"put":{"path":"/ide-7","upstreams":["http://10.0.0.7:8080"]}},{"delete":{"path":"/ide-6"}}]}`))
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer s3cret")
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	match, err := router.Lookup("any.host", "/ide-7/index.html")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %s→ %s\n", response.Status, body, match.Route().Upstreams[0].URL)
	// Output:
	// 200 OK {"version":1}
	// → http://10.0.0.7:8080
}
