package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

func TestBatch(t *testing.T) {
	s := serve(t, &admin.Handler{})
	version := func(a answer) uint64 { return decode[struct{ Version uint64 }](t, a).Version }
	const two = `{"changes":[{"put":{"path":"/a","upstreams":["http://h"]}},{"put":{"path":"/b","upstreams":["http://h"],"exact":true}}]}`
	if got := s.want(200, "POST", "/v1/batch", two); version(got) != 1 {
		t.Errorf("got %s; want version 1", got.body)
	}
	if got := s.want(200, "POST", "/v1/batch", two); version(got) != 1 {
		t.Errorf("the same again: got %s; want version 1", got.body)
	}
	got := s.want(200, "POST", "/v1/batch", `{"changes":[{"delete":{"path":"/b","exact":true}},{"delete":{"path":"/b"}},{"put":{"path":"/c","upstreams":["http://h"]}}]}`)
	if version(got) != 2 || keys(s.router) != "/a /c" {
		t.Errorf("got %s and routes %s; want version 2 and /a /c", got.body, keys(s.router))
	}
	got = s.want(200, "POST", "/v1/batch", `{"replace":true,"changes":[{"put":{"path":"/a","upstreams":["http://h"]}},{"put":{"path":"/d","upstreams":["http://h"]}}]}`)
	entry, _ := s.router.Table().At(slipswitch.Key{Path: "/a"})
	if version(got) != 3 || keys(s.router) != "/a /d" || entry.Version != 1 {
		t.Errorf("got %s, routes %s, /a of version %d; want version 3, /a /d, and /a of version 1", got.body, keys(s.router), entry.Version)
	}
	// In their order, the last wins; none is fine.
	got = s.want(200, "POST", "/v1/batch", `{"changes":[{"put":{"path":"/e","upstreams":["http://1"]}},{"delete":{"path":"/e"}},{"put":{"path":"/e","upstreams":["http://2"]}}]}`)
	if entry, _ := s.router.Table().At(slipswitch.Key{Path: "/e"}); entry.Route() == nil || entry.Route().Upstreams[0].URL != "http://2" {
		t.Errorf("put, delete, put: got %+v", entry)
	}
	if again := s.want(200, "POST", "/v1/batch", `{"changes":[]}`); again.body != got.body {
		t.Errorf("no changes: got %s; want %s", again.body, got.body)
	}
	s.want(200, "POST", "/v1/batch", `{"changes":[],"replace":true}`)
	if keys(s.router) != "" {
		t.Errorf("replace by nothing: got %s", keys(s.router))
	}
}

func keys(router *slipswitch.Router) string {
	var all []string
	for e := range router.Table().All() {
		all = append(all, e.Key().String())
	}
	return strings.Join(all, " ")
}

// A batch with invalid routes changes nothing, and the answer names each of
// them and all that is wrong with it.
func TestBatchNamesAllThatIsInvalid(t *testing.T) {
	s := serve(t, &admin.Handler{})
	put(t, s.router, "", slipswitch.Route{Path: "/stays"})
	got := s.want(400, "POST", "/v1/batch", `{"replace":true,"changes":[
		{"put":{"path":"/good","upstreams":["http://h"]}},
		{"put":{"path":"bad","host":"a b","upstreams":[]}},
		{"put":{"path":"/typo","upstream":"http://h","stripPath":"yes"}},
		{"delete":{"path":"/good"}},
		{"delete":{"path":"nothing"}},
		{"delete":{"path":"/x","kind":"exact"}},
		{"delete":5},
		{},
		{"put":{"path":"/x","upstreams":["http://h"]},"delete":{"path":"/x"}},
		{"patch":{}},
		{"put":null},
		7,
		{"put":{"path":"/%zz","upstreams":["gopher://h"],"maxBody":-1,"idleTimeout":"-1s"}}
	]}`)
	answer := decode[problem](t, got)
	var list []string
	for _, e := range answer.Invalid {
		list = append(list, fmt.Sprintf("%d %s %s=%.24s", e.Index, e.Key, e.Field, e.Value))
		if !strings.HasPrefix(e.Want, "must ") {
			t.Errorf("want %q does not say what must be", e.Want)
		}
	}
	want := []string{
		`1 a bbad host=a b`,
		`1 a bbad upstreams=`,
		`2 /typo stripPath="yes"`,
		`2 /typo upstream="http://h"`,
		`4 nothing path=nothing`,
		`5 /x kind="exact"`,
		`6  delete=5`,
		`7  change={}`,
		`8  change={"put":{"path":"/x","ups`,
		`9  change={"patch":{}}`,
		`10  route=null`,
		`11  change=7`,
		`12 /%zz path=/%zz`,
		`12 /%zz upstreams[0]=gopher://h`,
		`12 /%zz maxBody=-1`,
		`12 /%zz idleTimeout=-1s`,
	}
	if strings.Join(list, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(want, "\n"))
	}
	if keys(s.router) != "/stays" || s.router.Table().Version() != 1 {
		t.Errorf("got routes %s of version %d; want nothing changed", keys(s.router), s.router.Table().Version())
	}
}

func TestBatchErrors(t *testing.T) {
	s := serve(t, &admin.Handler{MaxBatch: 2000})
	for _, test := range []struct {
		body   string
		status int
		want   string
	}{
		{``, 415, `must be application/json`},
		{`{}`, 400, `changes \"\" must be given`},
		{`{"replace":true}`, 400, `changes \"\" must be given`},
		{`[]`, 400, `body \"[]\" must be an object`},
		{`null`, 400, `must be an object`},
		{`{"changes":null}`, 400, `changes \"null\" must be an array`},
		{`{"changes":{}}`, 400, `changes \"{}\" must be an array`},
		{`{"changes":[],"replace":"yes"}`, 400, `replace \"\\\"yes\\\"\" must be true or false`},
		{`{"changes":[],"replace":null}`, 400, `replace \"null\" must be true or false`},
		{`{"changes":[],"dry":true}`, 400, `field \"dry\" must be changes or replace`},
		{`{"Changes":[]}`, 400, `field \"Changes\" must be`},
		{`{"changes":[],"changes":[]}`, 400, `the key \"changes\" twice`},
		{`{"changes":[]}}`, 400, `more follows`},
		{`{"changes":[` + strings.Repeat(`{"put":`, 70) + `0` + strings.Repeat(`}`, 70) + `]}`, 400, `nested deeper than 64`},
		{`{"changes":[` + strings.Repeat(` `, 2000) + `]}`, 413, `at most 2000 bytes`},
	} {
		got := s.do("POST", "/v1/batch", test.body)
		if got.status != test.status || !strings.Contains(got.body, test.want) {
			t.Errorf("%.100s: got %d %s; want %d …%s…", test.body, got.status, got.body, test.status, test.want)
		}
	}
	s.want(400, "POST", "/v1/batch?replace=true", `{"changes":[]}`)

	s = serve(t, &admin.Handler{})
	got := s.want(400, "POST", "/v1/batch", `{"changes":[`+strings.Repeat(`0,`, 1_000_000)+`0]}`)
	if !strings.Contains(got.body, "at most 1000000 elements") {
		t.Errorf("a million changes too many: got %.200s", got.body)
	}
}

// A reader sees all of a batch or nothing of it.
func TestBatchIsAtomic(t *testing.T) {
	s := serve(t, &admin.Handler{})
	batches := [2]string{}
	for i := range batches {
		var changes []string
		for n := range 20 {
			changes = append(changes, fmt.Sprintf(`{"put":{"path":"/%d","upstreams":["http://h%d"]}}`, n+10*i, i))
		}
		batches[i] = `{"replace":true,"changes":[` + strings.Join(changes, ",") + `]}`
	}
	s.want(200, "POST", "/v1/batch", batches[0])
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(stop)
		for i := range 50 {
			if got := s.do("POST", "/v1/batch", batches[i%2]); got.status != 200 {
				t.Errorf("got %d %s; want 200", got.status, got.body)
			}
			if got := s.do("POST", "/v1/batch", `{"replace":true,"changes":[{"put":{"path":"x"}}]}`); got.status != 400 {
				t.Errorf("got %d %s; want 400", got.status, got.body)
			}
		}
	})
	for {
		page := decode[routePage](t, s.want(200, "GET", "/v1/routes", ""))
		upstreams := make(map[string]int)
		for _, item := range page.Routes {
			upstreams[item.Route.Upstreams[0].URL]++
		}
		if len(upstreams) != 1 || len(page.Routes) != 20 {
			t.Fatalf("version %d: got %v; want 20 routes of one batch", page.Version, upstreams)
		}
		select {
		case <-stop:
			wg.Wait()
			return
		default:
		}
	}
}

func TestLargeBatch(t *testing.T) {
	s := serve(t, &admin.Handler{})
	var body strings.Builder
	const n = 5_000
	for i := range n {
		fmt.Fprintf(&body, `,{"put":{"host":"ide.example.com","path":"/ws/ide-%06d","upstreams":["http://10.0.0.7:8080"],"stripPath":true,"labels":{"a":"b"}}}`, i)
	}
	s.want(200, "POST", "/v1/batch", `{"changes":[`+body.String()[1:]+`]}`)
	if got := s.router.Table().Len(); got != n {
		t.Errorf("got %d routes; want %d", got, n)
	}
}

// Whatever is posted, nothing panics; a refused batch changes nothing, and of an
// accepted one encoding/json reads the same routes, which read back as they were
// put.
func FuzzBatch(f *testing.F) {
	for _, seed := range []string{
		`{"changes":[{"put":{"path":"/a","upstreams":["http://h"]}},{"delete":{"path":"/a"}}]}`,
		`{"changes":[],"replace":true}`,
		`{"changes":[{"put":{"host":"*.h","path":"/a%2Fb//c","exact":true,"upstreams":[{"url":"https://h/x"}],"idleTimeout":"1s","labels":{"a":"b"},"meta":[1,{"x":null}]}}]}`,
		`{"changes":[{"put":{"path":"bad"}},{"put":null},{},7,{"delete":{"path":"/%zz"}}]}`,
		`{"changes":[{"put":{"path":"/a","PATH":"/b"}}]}`,
		" { \"chang\\u0065s\" :\t[ { \"p\\u0075t\" : {\"path\" : \"/a\\/b\" , \"upstreams\":[\"http://h\" ] ,\r\n\"meta\" : {\"},{]\\\"\":-1.5e+7,\"\\\\\":[]} } } ] } ",
		`[[[[[[`,
		`{"changes":[{"put":{"meta":"\ud800"}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		router := new(slipswitch.Router)
		put(t, router, "", slipswitch.Route{Path: "/stays"})
		h := &admin.Handler{Router: router, Open: true}
		post := func(body string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("POST", "http://localhost/v1/batch", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			h.ServeHTTP(w, r)
			return w
		}
		w := post(string(body))
		switch w.Code {
		case 400:
			var wrong problem
			if err := json.Unmarshal(w.Body.Bytes(), &wrong); err != nil || wrong.Error == "" || wrong.Status != 400 {
				t.Fatalf("got answer %q", w.Body)
			}
			if router.Table().Version() != 1 || keys(router) != "/stays" {
				t.Fatalf("a refused batch changed the table: %s", keys(router))
			}
		case 200:
			var plain struct {
				Changes []slipswitch.Change `json:"changes"`
				Replace bool                `json:"replace"`
			}
			if err := json.Unmarshal(body, &plain); err != nil {
				t.Fatal(err)
			}
			read := new(slipswitch.Router)
			put(t, read, "", slipswitch.Route{Path: "/stays"})
			if _, err := read.Update(func(tx *slipswitch.Txn) error {
				if plain.Replace {
					tx.Clear()
				}
				tx.Apply(plain.Changes...)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(slices.Collect(read.Table().All()), slices.Collect(router.Table().All()),
				func(a, b slipswitch.Entry) bool { return a.Route().Equal(b.Route()) }) {
				t.Fatalf("encoding/json reads the routes %s; got %s", keys(read), keys(router))
			}
			type change struct {
				Put *slipswitch.Route `json:"put"`
			}
			again := struct {
				Changes []change `json:"changes"`
				Replace bool     `json:"replace"`
			}{[]change{}, true}
			for e := range router.Table().All() {
				again.Changes = append(again.Changes, change{e.Route()})
			}
			text, err := json.Marshal(again)
			if err != nil {
				t.Fatal(err)
			}
			version := router.Table().Version()
			if w := post(string(text)); w.Code != 200 || router.Table().Version() != version {
				t.Fatalf("what stands, put again as %s: got %d %s, version %d; want no change to version %d",
					text, w.Code, w.Body, router.Table().Version(), version)
			}
		default:
			t.Fatalf("got status %d %s", w.Code, w.Body)
		}
	})
}
