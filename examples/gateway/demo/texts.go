package demo

// hello and embedding are the initial texts of the workspaces.

func hello() *file {
	return newFile("hello.go", `package main

import "fmt"

// Open this page in a second tab and type in both.
// Then press the button: a hundred other workspaces
// come and go, and this line does not even blink.

func main() {
	for tab := range 3 {
		fmt.Println("hello from tab", tab)
	}
}
`)
}

func embedding() *file {
	return newFile("gateway.go", `package main

import (
	"net/http"

	"github.com/slipswitch/slipswitch"
)

// A gateway of one's own is this much.

func main() {
	var router slipswitch.Router
	router.Update(func(tx *slipswitch.Txn) error {
		tx.Put(slipswitch.Route{
			Path:      "/webapp-01/ide-7",
			StripPath: true,
			Upstreams: slipswitch.To("http://10.0.0.7:8080"),
		})
		return nil
	})
	http.ListenAndServe(":8080", &slipswitch.Proxy{Router: &router})
}
`)
}
