package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/filestore"
	"github.com/slipswitch/slipswitch/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		dir := t.TempDir()
		return storetest.Subject{
			Open: func(t *testing.T) store.Store { return open(t, dir) },
			Cut: func(t *testing.T) func() {
				away := dir + ".away"
				rename(t, dir, away)
				return func() { rename(t, away, dir) }
			},
		}
	})
}

func open(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A rig is a router that follows a directory.
type rig struct {
	t   *testing.T
	dir string
	*filestore.Store
	*store.Sync
}

func newRig(t *testing.T) *rig {
	dir := t.TempDir()
	s := open(t, dir)
	r := &rig{t, dir, s, &store.Sync{Source: s, Router: new(slipswitch.Router)}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Sync.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func (r *rig) write(name, content string) { r.t.Helper(); write(r.t, r.dir, name, content) }

// want waits until the table has the routes, "owner:key=upstream" or in
// parentheses if shadowed, and the quarantine the places.
func (r *rig) want(routes, quarantined []string) {
	r.t.Helper()
	var got, bad []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		table := r.Router.Table()
		got, bad = nil, nil
		for e := range table.All() {
			text := fmt.Sprintf("%s:%s=%s", e.Owner, e.Key(), strings.TrimPrefix(e.Route().Upstreams[0].URL, "http://"))
			if e.Shadowed {
				text = "(" + text + ")"
			}
			got = append(got, text)
		}
		for _, q := range r.Status().Quarantined {
			bad = append(bad, q.Where+": "+q.Error)
		}
		slices.Sort(bad)
		if slices.Equal(got, routes) && len(bad) == len(quarantined) {
			for i, q := range quarantined {
				if !strings.Contains(bad[i], q) {
					r.t.Errorf("in quarantine is %q; want %q", bad[i], q)
				}
			}
			return
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		r.Wait(ctx, r.Status().Revision+1)
		cancel()
	}
	r.t.Fatalf("the table has %v, the quarantine %v; want %v, %v", got, bad, routes, quarantined)
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	r.write("a.yaml", "owner: team\nroutes:\n- path: /a\n  upstreams: [http://1]\n  idleTimeout: 120s\n  labels: {since: 2024-01-01}\n- {owner: other, path: /b, upstreams: ['http://1']}\n")
	r.write("b.json", `[{"path":"/a","upstreams":["http://2"],"meta":{"n":12345678901234567890}}]`)
	r.write("ignored.txt", "- path: /x")
	r.write(".hidden.yaml", "- path: /x")
	r.want([]string{"team:/a=1", "(:/a=2)", "other:/b=1"}, nil)
	e, _ := r.Router.Table().At(slipswitch.Key{Path: "/a"})
	if e.Route().IdleTimeout != 2*time.Minute || e.Route().Labels["since"] != "2024-01-01" {
		t.Errorf("got %+v", e.Route())
	}
	// A file that is wrong keeps its routes, and only those stay as they are.
	r.write("a.yaml", "owner: team\nroutes:\n- path: /a\n  upstreams: [http://9]\n- path: [secret]\n  upstreams: [http://1]\n")
	r.write("b.json", `[{"path":"/a","upstreams":["http://3"]},{"path":"/c","upstreams":["ftp://secret"]}]`)
	r.want([]string{"team:/a=1", "(:/a=3)", "other:/b=1"}, []string{"a.yaml: filestore: a.yaml:5: path must be", "b.json:1: upstreams[0] must begin"})
	for _, q := range r.Status().Quarantined {
		if strings.Contains(q.Error, "secret") {
			t.Errorf("the quarantine tells what a file holds: %s", q.Error)
		}
	}
	r.write("a.yaml", "[]")
	r.want([]string{":/a=3"}, []string{"b.json:1"})
	// The last file is gone: that may be an accident.
	if err := os.Remove(filepath.Join(r.dir, "b.json")); err != nil {
		t.Fatal(err)
	}
	r.want([]string{":/a=3"}, nil)
	if err := r.Confirm(t.Context()); err != nil {
		t.Error(err)
	}
	r.want(nil, nil)
}

// A key that is claimed twice is the first file's.
func TestClaimedTwice(t *testing.T) {
	r := newRig(t)
	r.write("b.yaml", "- path: /a/\n  upstreams: [http://b]")
	r.write("c.yaml", "- path: /%61\n  upstreams: [http://c]\n- path: /b\n  upstreams: [http://c]")
	r.want([]string{":/a=b", ":/b=c"}, []string{"c.yaml:1: filestore: c.yaml:1: the route is in b.yaml:1 already"})
	r.write("a.yaml", "- path: /a\n  upstreams: [http://a]")
	r.want([]string{":/a=a", ":/b=c"}, []string{"c.yaml:1"}) // two of one route are one in quarantine
	os.Remove(filepath.Join(r.dir, "a.yaml"))
	os.Remove(filepath.Join(r.dir, "b.yaml"))
	r.want([]string{":/%61=c", ":/b=c"}, nil)
}

// Write leaves the files of people alone.
func TestWriteAmongFiles(t *testing.T) {
	r := newRig(t)
	const mine = "# mine\n- path: /a\n  upstreams: [http://1]\n"
	r.write("mine.yaml", mine)
	r.want([]string{":/a=1"}, nil)
	put := func(path, upstream string) slipswitch.Change {
		return slipswitch.Change{Put: &slipswitch.Route{Path: path, Upstreams: slipswitch.To("http://" + upstream)}}
	}
	for _, c := range []slipswitch.Change{put("/%61", "2"), {Delete: &slipswitch.Key{Path: "/a"}}} {
		if _, err := r.Write(t.Context(), "", put("/b", "2"), c); !errors.Is(err, store.ErrReadOnly) || !strings.Contains(err.Error(), "mine.yaml:2") {
			t.Errorf("got %v; want ErrReadOnly and the place", err)
		}
	}
	if _, err := r.Apply(t.Context(), "chp", put("/a", "2"), put("/b", "2")); err != nil {
		t.Fatal(err)
	}
	r.want([]string{":/a=1", "(chp:/a=2)", "chp:/b=2"}, nil)
	if got, err := os.ReadFile(filepath.Join(r.dir, "mine.yaml")); err != nil || string(got) != mine {
		t.Errorf("mine.yaml is now %q, %v", got, err)
	}
	if names, err := os.ReadDir(r.dir); err != nil || len(names) != 2 {
		t.Errorf("the directory has %v, %v; want two files", names, err)
	}
	// A written file that somebody has spoilt is not written over.
	r.write(filestore.Written, `{"routes":[{"path":"/b"`)
	r.want([]string{":/a=1", "(chp:/a=2)", "chp:/b=2"}, []string{filestore.Written})
	if _, err := r.Write(t.Context(), "chp", put("/c", "2")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v; want ErrUnavailable", err)
	}
	large := put("/large", "1")
	large.Put.Labels = map[string]string{"x": strings.Repeat("x", 1<<20)}
	r.write(filestore.Written, `[]`)
	if _, err := r.Write(t.Context(), "", large); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("got %v; want ErrTooLarge", err)
	}
}

// The files of a ConfigMap are links through a link, and change all at once.
func TestConfigMap(t *testing.T) {
	r := newRig(t)
	version := func(n int) {
		t.Helper()
		dir := fmt.Sprintf("..version%d", n)
		if err := os.Mkdir(filepath.Join(r.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			r.write(filepath.Join(dir, name+".yaml"), fmt.Sprintf("- path: /%s\n  upstreams: [http://%d]", name, n))
		}
		link := filepath.Join(r.dir, "..data_new")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		rename(t, link, filepath.Join(r.dir, "..data"))
	}
	version(0)
	for _, name := range []string{"a.yaml", "b.yaml"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.want([]string{":/a=0", ":/b=0"}, nil)
	from := r.Router.Table().Version()
	for n := range 5 {
		version(n + 1)
		r.want([]string{fmt.Sprint(":/a=", n+1), fmt.Sprint(":/b=", n+1)}, nil)
	}
	if got := r.Router.Table().Version(); got != from+5 {
		t.Errorf("%d tables for 5 versions", got-from)
	}
	os.Remove(filepath.Join(r.dir, "..data"))
	r.want([]string{":/a=5", ":/b=5"}, []string{"a.yaml", "b.yaml"}) // links to nowhere
}

// A directory that is not there any more is an outage, and one in its place is
// followed.
func TestDirectoryReplaced(t *testing.T) {
	r := newRig(t)
	r.write("a.yaml", "- path: /a\n  upstreams: [http://1]")
	r.want([]string{":/a=1"}, nil)
	rename(t, r.dir, r.dir+".away")
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.write("b.yaml", "- path: /b\n  upstreams: [http://1]")
	r.want([]string{":/b=1"}, nil)
	r.write("c.yaml", "- path: /c\n  upstreams: [http://1]")
	r.want([]string{":/b=1", ":/c=1"}, nil)
	// One without files in its place is an accident until it is confirmed.
	rename(t, r.dir, r.dir+".gone")
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for len(r.Status().Braked) == 0 {
		r.Wait(t.Context(), r.Status().Revision+1)
	}
	if b := r.Status().Braked[0]; b.Held != 2 || b.Because != "the source is empty" {
		t.Errorf("braked: %+v; want both routes held", b)
	}
	r.want([]string{":/b=1", ":/c=1"}, nil)
}
