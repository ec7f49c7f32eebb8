package filestore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/filestore"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	err = os.WriteFile(filepath.Join(dir, "team-a.yaml"), []byte(`
owner: team-a
routes:
- path: /notebooks
  upstreams: [http://10.0.0.7:8888]
`), 0o600)
	if err != nil {
		fmt.Println(err)
		return
	}

	files, err := filestore.Open(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer files.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var router slipswitch.Router
	sync := &store.Sync{Source: files, Router: &router}
	go sync.Run(ctx)
	fmt.Println(sync.Wait(ctx, 0), router.Table().Len())
	// Output: <nil> 1
}
