package boltstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	routes, err := boltstore.Open(filepath.Join(dir, "routes.db"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer routes.Close() // when a drain begins: a successor can open the file then

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var router slipswitch.Router
	sync := &store.Sync{Source: routes, Router: &router}
	go sync.Run(ctx)

	route := slipswitch.Route{Path: "/ide-7", Upstreams: slipswitch.To("http://10.0.0.7:8080")}
	_, err = sync.Apply(ctx, "", slipswitch.Change{Put: &route}) // on the disk, and routed
	fmt.Println(router.Table().Len(), err)
	// Output: 1 <nil>
}
