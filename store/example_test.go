package store_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

// A router that follows a store, and writes that return when the router has
// them.
func ExampleSync() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	var router slipswitch.Router
	sync := &store.Sync{Source: new(store.Memory), Router: &router}
	go sync.Run(ctx)
	if err := sync.Wait(ctx, 0); err != nil { // ready to serve
		fmt.Println(err)
	}

	route := slipswitch.Route{Path: "/ide-7", Upstreams: slipswitch.To("http://10.0.0.7:8080")}
	revision, err := sync.Apply(ctx, "", slipswitch.Change{Put: &route})
	fmt.Println(revision, err)
	match, err := router.Lookup("example.com", "/ide-7/index.html")
	fmt.Println(match.Route().Upstreams[0].URL, err)
	// Output:
	// 1 <nil>
	// http://10.0.0.7:8080 <nil>
}

// Where an address may soon be another tenant's, an old table is not used.
func ExampleSync_Handler() {
	var router slipswitch.Router
	sync := &store.Sync{Source: new(store.Memory), Router: &router, MaxStale: time.Minute}
	proxy := &slipswitch.Proxy{Router: &router, Middleware: sync.Handler}
	server := &http.Server{Handler: proxy.Handler(http.NotFoundHandler())}
	_ = server // serve
}

// A source of one's own: here one that says everything once, and then only that
// nothing has changed.
func ExampleFeed() {
	var feed store.Feed
	position := store.Position{Identity: "static", Revision: 1}
	feed.Start(position)
	route := slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://127.0.0.1:8080")}
	full := func() (store.Batch, error) {
		return store.Batch{Position: position, Full: true, Entries: []store.Entry{{Key: route.Key(), Route: &route}}}, nil
	}
	for b := range feed.Watch(context.Background(), store.Position{}, full) {
		fmt.Println(b.Full, b.Entries[0].Key)
		break
	}
	// Output: true /
}
