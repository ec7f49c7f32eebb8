package filestore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/filestore"
)

// writeOwn is a child, which puts many routes of its own, one at a time, and
// prints each that is acknowledged.
func writeOwn(dir, name string) error {
	s, err := filestore.Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range 100 {
		path := fmt.Sprintf("/%s/%d", name, i)
		if _, err := s.Write(context.Background(), "", slipswitch.Change{Put: &slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://1")}}); err != nil {
			return err
		}
		fmt.Println("acknowledged", path)
	}
	return nil
}

// Two processes that write to one directory lose nothing that is acknowledged,
// and leave nothing lying about; also if others have been killed before.
func TestTwoWriters(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, ".written.json.new-KILLED", "half a fi")
	var outputs []*bufio.Scanner
	for _, name := range []string{"one", "two"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, childEnv+"_OWN="+name)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		outputs = append(outputs, bufio.NewScanner(out))
	}
	var acknowledged []string
	for _, lines := range outputs {
		for lines.Scan() {
			what, path, _ := strings.Cut(lines.Text(), " ")
			if what != "acknowledged" {
				t.Fatal(lines.Text())
			}
			acknowledged = append(acknowledged, path)
		}
	}
	if len(acknowledged) != 200 {
		t.Errorf("%d writes are acknowledged; want 200", len(acknowledged))
	}
	var kept []string
	for b, err := range open(t, dir).Watch(t.Context(), store.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Entries {
			if e.Err != nil {
				t.Fatal(e.Err)
			}
			kept = append(kept, e.Key.Path)
		}
		break
	}
	slices.Sort(acknowledged)
	slices.Sort(kept)
	if !slices.Equal(kept, acknowledged) {
		t.Errorf("%d routes are kept; want the %d that are acknowledged", len(kept), len(acknowledged))
	}
	if names, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(names) > 0 {
		t.Errorf("%v, %v are left", names, err)
	}
}

// A file that is broken keeps its last good routes, and is written to again as
// soon as it is repaired, with what stands in it then.
func TestWrittenFileMended(t *testing.T) {
	r := newRig(t)
	put := func(path string) error {
		_, err := r.Apply(t.Context(), "", slipswitch.Change{Put: &slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://1")}})
		return err
	}
	if err := put("/a"); err != nil {
		t.Fatal(err)
	}
	r.write(filestore.Written, `{"routes":[{"path":"/b"`)
	r.want([]string{":/a=1"}, []string{filestore.Written})
	if err := put("/c"); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "repair the file") {
		t.Errorf("got %v; want ErrUnavailable, and what to do", err)
	}
	r.want([]string{":/a=1"}, []string{filestore.Written})
	r.write(filestore.Written, `[{"path":"/b","upstreams":["http://1"]}]`)
	if err := put("/c"); err != nil {
		t.Error(err)
	}
	r.want([]string{":/b=1", ":/c=1"}, nil)
}

// A writer that waits for another's lock gives up when its time is over.
func TestLockedOut(t *testing.T) {
	r := newRig(t)
	unlock, err := filestore.Lock(t.Context(), r.dir)
	if err != nil || unlock == nil {
		t.Skip("no locks here: ", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := r.Write(ctx, "", batch(1)...)
		done <- err
	}()
	r.write("a.yaml", "- path: /a\n  upstreams: [http://1]")
	r.want([]string{":/a=1"}, nil) // reading goes on
	cancel()
	if err := <-done; !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want ErrUnavailable for the context's end", err)
	}
	unlock()
	if _, err := r.Write(t.Context(), "", batch(1)...); err != nil {
		t.Error(err)
	}
}
