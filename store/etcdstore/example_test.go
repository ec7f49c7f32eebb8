package etcdstore_test

import (
	"context"
	"fmt"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/etcdstore"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A gateway among several.
func ExampleDial() {
	routes, err := etcdstore.Dial(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer routes.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var router slipswitch.Router
	sync := &store.Sync{Source: routes, Router: &router, Gateway: "gateway-1"}
	go sync.Run(ctx)

	route := slipswitch.Route{Path: "/ide-7", Upstreams: slipswitch.To("http://10.0.0.7:8080")}
	revision, err := sync.Apply(ctx, "", slipswitch.Change{Put: &route}) // in etcd, and routed here
	if err == nil {
		err = sync.WaitAll(ctx, revision) // and everywhere
	}
	fmt.Println(err)
}

// A workspace's agent, whose route goes when it dies.
func ExampleStore_Register() {
	routes, err := etcdstore.Dial(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer routes.Close()
	ctx, cancel := context.WithCancel(context.Background()) // for as long as the workspace serves
	defer cancel()
	err = routes.Register(ctx, 15*time.Second, "agents", slipswitch.Route{
		Path:      "/ide-7",
		Upstreams: slipswitch.To("http://10.0.0.7:8080"),
	})
	fmt.Println(err)
}
