module github.com/slipswitch/slipswitch

go 1.26.0

require (
	github.com/coder/websocket v1.8.15
	github.com/hashicorp/go-immutable-radix/v2 v2.1.0
	go.etcd.io/bbolt v1.5.0
	go.uber.org/goleak v1.3.0
	golang.org/x/sync v0.25.0
	golang.org/x/sys v0.49.0
	pgregory.net/rapid v1.3.0
)

require github.com/hashicorp/golang-lru/v2 v2.0.0 // indirect
