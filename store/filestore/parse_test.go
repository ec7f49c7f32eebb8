package filestore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/filestore"
)

// one returns what a directory with one file says of it.
func one(t testing.TB, name, content string) []store.Entry {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := filestore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for b, err := range s.Watch(t.Context(), store.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		return b.Entries
	}
	t.Fatal("no batch")
	return nil
}

func TestParseErrors(t *testing.T) {
	const route = "- path: /a\n  upstreams: [http://a]\n"
	for _, tt := range []struct{ name, content, want string }{
		{"a.yaml", "", "a.yaml:1: must not be empty"},
		{"a.yaml", "# nothing\n", "a.yaml:1: must not be empty"},
		{"a.yaml", "null", "a.yaml:1: must be a list"},
		{"a.yaml", "secret", "a.yaml:1: must be a list"},
		{"a.yaml", "secret: {", "a.yaml:1: must be YAML: did not find expected node content"},
		{"a.yaml", route + "\n\tsecret: [", "a.yaml:4: must be YAML: found character that cannot start any token"},
		{"a.yaml", route + "---\n- secret", "a.yaml:3: must hold one YAML document"},
		{"a.yaml", "routes: {}", "a.yaml:1: must be a list"},
		{"a.yaml", "owner: a", "a.yaml:1: must be a list"},
		{"a.yaml", "owner: [secret]\nroutes: []", "a.yaml:1: owner must be a text"},
		{"a.yaml", "routes: []\nother: secret", "a.yaml:2: other must not stand here"},
		{"a.yaml", route + "- secret", "a.yaml:3: must be a route here"},
		{"a.yaml", route + "- path: /b\n  colour: secret", "a.yaml:4: colour must not be there: a route has no such field"},
		{"a.yaml", route + "- path: /b\n  dialTimeout:\n    secret", "a.yaml:5: dialTimeout must be a duration"},
		{"a.yaml", route + "- path: /b\n  maxBody: secret", "a.yaml:4: maxBody must be a whole number"},
		{"a.yaml", route + "- path: /b\n  upstreams: [{url: a, wieght: secret}]", "a.yaml:4: upstreams[0].wieght must not be there: known are url, weight"},
		{"a.yaml", route + "- path: /b\n  path: /secret", "a.yaml:4: path is there twice"},
		{"a.yaml", route + "- path: secret", "a.yaml:3: path must begin with /"},
		{"a.yaml", "- *secret", "must be YAML"},
		{"a.yaml", "- &secret {path: /a}\n- *secret", "a.yaml:2: must not have aliases"},
		{"a.yaml", "- meta: !secret x", "a.yaml:1: must not have tags"},
		{"a.yaml", "- meta: !!binary c2VjcmV0", "a.yaml:1: must not have tags"},
		{"a.yaml", "- meta: .inf", "a.yaml:1: must have finite numbers"},
		{"a.yaml", "- [secret]: a", "a.yaml:1: must have plain texts as names"},
		{"a.json", "", "a.json:1: must be JSON"},
		{"a.json", "[]\n[]", "a.json:2: must end after one JSON value"},
		{"a.json", "[\n{\"path\":\"/a\",\n\"upstreams\":[\"http://a\"]},\n{secret}]", "a.json:4: must be JSON"},
		{"a.json", "[\n{\"path\":\"/a\",\n\"maxBody\":\"secret\"}]", "a.json:3: maxBody must be a whole number"},
		{"a.json", "[\n{\"path\":\"/a\",\"path\":\n\"secret\"}]", "a.json:2: path is there twice"},
		{"a.json", `{"routes":[]`, "a.json:1: must be JSON"},
	} {
		entries := one(t, tt.name, tt.content)
		if len(entries) != 1 || entries[0].Err == nil {
			t.Errorf("%q: got %+v; want one error", tt.content, entries)
			continue
		}
		if got := entries[0].Err.Error(); !strings.Contains(got, tt.want) || strings.Contains(got, "secret") {
			t.Errorf("%q: got %q; want %q, and no secret", tt.content, got, tt.want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, content string }{
		{"a.yaml", "- path: \"/a\"\n  upstreams:\n  - http://a\n  meta: {n: 0x10, f: 1.5, t: true, e: ~, s: '\\ud83d'}\n"},
		{"a.yml", `{"owner":"","routes":[{"path":"/a","upstreams":["http://a"],"meta":{"n":16,"f":1.5,"t":true,"e":null,"s":"\\ud83d"}}]}`},
		{"a.json", `{"routes":[{"path":"/a","upstreams":["http://a"],"meta":{"n":16,"f":1.5,"t":true,"e":null,"s":"\\ud83d"}}]}`},
	} {
		entries := one(t, tt.name, tt.content)
		if len(entries) != 1 || entries[0].Err != nil {
			t.Errorf("%q: got %+v", tt.content, entries)
			continue
		}
		if got, want := string(entries[0].Route.Meta), `{"n":16,"f":1.5,"t":true,"e":null,"s":"\\ud83d"}`; got != want {
			t.Errorf("%q: meta %s; want %s", tt.content, got, want)
		}
	}
	for _, empty := range []string{"[]", "routes: []"} {
		if entries := one(t, "a.yaml", empty); len(entries) != 0 {
			t.Errorf("%q: got %+v", empty, entries)
		}
	}
}

// Small files that are much work: none takes long.
func TestParseBombs(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("- &a [x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c < 'k'; c++ {
		laughs.WriteString("- &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "]\n")
	}
	for name, content := range map[string]string{
		"laughs.yaml": laughs.String(),
		"deep.yaml":   strings.Repeat("[", 1<<19),
		"deep.json":   strings.Repeat("[", 1<<20),
		"deeper.json": `[{"meta":` + strings.Repeat(`{"a":`, 200_000),
		"dashes.yaml": strings.Repeat("- ", 1<<19),
		"wide.json":   "[" + strings.Repeat("0,", 1<<18) + "0]",
		"fields.json": "[{" + strings.Repeat(`"":0,`, 1<<17) + `"":0}]`,
	} {
		began := time.Now()
		if entries := one(t, name, content); len(entries) != 1 || entries[0].Err == nil {
			t.Errorf("%s: got %d entries; want an error", name, len(entries))
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	var many strings.Builder
	many.WriteString(`[{"path":"/a","upstreams":["http://a"],"meta":{`)
	for i := range 1 << 16 {
		fmt.Fprintf(&many, `"%d":0,`, i)
	}
	many.WriteString(`"z":0}}]`)
	if entries := one(t, "many.json", many.String()); len(entries) != 1 || entries[0].Err != nil {
		t.Errorf("many fields: got %+v", entries)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a.yaml", "- path: /a\n  upstreams: [http://a]\n")
	f.Add("a.json", `{"owner":"a","routes":[{"path":"/a","upstreams":["http://a"]}]}`)
	f.Add("a.yaml", "a: &b [*b]")
	f.Fuzz(func(t *testing.T, name, content string) {
		if name != "a.yaml" {
			name = "a.json"
		}
		entries, err := filestore.Parse(name, []byte(content))
		if err != nil && (entries != nil || !strings.HasPrefix(err.Error(), "filestore: "+name)) {
			t.Errorf("got %v with %v; want the file named, and nothing else", err, entries)
		}
		for _, e := range entries {
			canonical, err := e.Route.Key().Canonical()
			if err != nil || canonical != e.Key || e.Where == "" {
				t.Errorf("got %+v; want a route with its canonical key and place", e)
			}
		}
	})
}
