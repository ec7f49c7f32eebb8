module github.com/slipswitch/slipswitch/store/filestore

go 1.26.0

require (
	github.com/fsnotify/fsnotify v1.10.1
	github.com/slipswitch/slipswitch v0.0.0
	go.uber.org/goleak v1.3.0
	go.yaml.in/yaml/v3 v3.0.6
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/hashicorp/go-immutable-radix/v2 v2.1.0 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.0 // indirect
	golang.org/x/sync v0.25.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/slipswitch/slipswitch => ../..
