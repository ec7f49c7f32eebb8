package admin_test

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

func TestListRoutes(t *testing.T) {
	s := serve(t, &admin.Handler{})
	put(t, s.router, "", slipswitch.Route{Path: "/"}, slipswitch.Route{Path: "/user/a%40b/x", Labels: map[string]string{"team": "a", "tier": ""}},
		slipswitch.Route{Path: "/user/a@b", Exact: true, Labels: map[string]string{"team": "b"}},
		slipswitch.Route{Host: "h.example", Path: "/user", Upstreams: slipswitch.To("http://10.0.0.7/base", "https://10.0.0.8")}, slipswitch.Route{Host: "*.h.example", Path: "/users"})
	put(t, s.router, "chp", slipswitch.Route{Path: "/"}, slipswitch.Route{Path: "/hub"})
	for _, test := range []struct {
		query string
		want  string // owner:key of each, - before shadowed ones
	}{
		{"", ":/ chp:/- chp:/hub :=/user/a@b :/user/a%40b/x :*.h.example/users :h.example/user"},
		{"owner=", ":/ :=/user/a@b :/user/a%40b/x :*.h.example/users :h.example/user"},
		{"owner=chp", "chp:/- chp:/hub"},
		{"owner=none", ""},
		{"host=", ":/ chp:/- chp:/hub :=/user/a@b :/user/a%40b/x"},
		{"host=H.Example", ":h.example/user"},
		{"host=*.h.example", ":*.h.example/users"},
		{"path=/", ":/ chp:/- chp:/hub :=/user/a@b :/user/a%40b/x :*.h.example/users :h.example/user"},
		{"path=/user", ":=/user/a@b :/user/a%40b/x :h.example/user"},
		{"path=/user/a@b/", ":=/user/a@b :/user/a%40b/x"},
		{"path=/user/a%2540b", ":=/user/a@b :/user/a%40b/x"},
		{"path=/use", ""},
		{"label=team=a", ":/user/a%40b/x"},
		{"label=team", ":=/user/a@b :/user/a%40b/x"},
		{"label=team=", ""},
		{"label=tier=", ":/user/a%40b/x"},
		{"label=team&label=tier", ":/user/a%40b/x"},
		{"inactive_since=2000-01-01", ""},
		{"inactive_since=2100-01-01&host=h.example", ":h.example/user"},
		{"upstream=http://10.0.0.7:80", ":h.example/user"},
		{"upstream=10.0.0.8:443", ":h.example/user"},
		{"upstream=10.0.0.7", ""},
	} {
		for _, limit := range []int{0, 1, 2, 100} {
			var got []string
			after := ""
			for pages := 0; ; pages++ {
				query := test.query + "&after=" + url.QueryEscape(after)
				if limit > 0 {
					query += fmt.Sprintf("&limit=%d", limit)
				}
				page := decode[routePage](t, s.want(200, "GET", "/v1/routes?"+query, ""))
				if page.Version != 2 || pages > 10 {
					t.Fatalf("GET %s: got version %d, page %d", query, page.Version, pages)
				}
				for _, item := range page.Routes {
					name := item.Owner + ":" + item.Route.Key().String()
					if item.Shadowed {
						name += "-"
					}
					got = append(got, name)
				}
				if after = page.Next; after == "" {
					break
				}
			}
			slices.Sort(got)
			want := strings.Fields(test.want)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("GET %s limit %d: got %q; want %q", test.query, limit, got, want)
			}
		}
	}
	for _, query := range []string{"limit=0", "limit=-1", "limit=1001", "limit=x", "limit=", "after=x", "after=AAAA", "after=!", "path=x", "path=/%25",
		"inactive_since=yesterday", "owner=a&owner=b", "Host=x", "label=a;b", "exact=true"} {
		if got := s.do("GET", "/v1/routes?"+query, ""); got.status != 400 || decode[problem](t, got).Error == "" {
			t.Errorf("GET %s: got %d %s; want 400", query, got.status, got.body)
		}
	}
	if got := s.want(200, "GET", "/v1/routes?owner=none", ""); !strings.Contains(got.body, `"routes":[]`) {
		t.Errorf("no routes: got %s; want an empty array", got.body)
	}
}

// What stands all the while is on exactly one page, in order, whatever else
// changes between the pages.
func TestPagingWhileChanging(t *testing.T) {
	s := serve(t, &admin.Handler{})
	var stable []slipswitch.Route
	for i := range 1000 {
		r := slipswitch.Route{Path: fmt.Sprintf("/ide-%04d", i)}
		switch i % 3 {
		case 1:
			r.Host = "a.example"
		case 2:
			r.Exact = true
		}
		stable = append(stable, r)
	}
	put(t, s.router, "", stable...)
	put(t, s.router, "other", stable[100:200]...)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			s.router.Update(func(tx *slipswitch.Txn) error {
				for j := range 50 {
					churn := slipswitch.Route{Path: fmt.Sprintf("/ide-%04d/churn", (i*7+j*20)%1000), Upstreams: slipswitch.To("http://127.0.0.1:9")}
					if (i+j)%2 == 0 {
						tx.Put(churn)
					} else {
						tx.Delete(churn.Key())
					}
				}
				return nil
			})
		}
	})
	for _, limit := range []int{1000, 37} {
		seen := make(map[string]int)
		last, after := "", ""
		var versions []uint64
		for {
			page := decode[routePage](t, s.want(200, "GET", fmt.Sprintf("/v1/routes?limit=%d&after=%s", limit, url.QueryEscape(after)), ""))
			versions = append(versions, page.Version)
			if len(page.Routes) == 0 || len(page.Routes) > limit+1 {
				t.Fatalf("limit %d: got a page of %d", limit, len(page.Routes))
			}
			for _, item := range page.Routes {
				if strings.HasSuffix(item.Route.Path, "/churn") {
					continue
				}
				if order := item.Route.Host + item.Route.Path; order < last {
					t.Fatalf("limit %d: %s came behind %s", limit, order, last)
				} else {
					last = order
				}
				seen[item.Owner+":"+item.Route.Key().String()]++
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if len(seen) != 1100 {
			t.Errorf("limit %d: got %d routes; want 1100", limit, len(seen))
		}
		for name, n := range seen {
			if n != 1 {
				t.Errorf("limit %d: %s was shown %d times", limit, name, n)
			}
		}
		if limit == 37 && versions[0] == versions[len(versions)-1] {
			t.Errorf("nothing has changed between the pages")
		}
	}
	close(stop)
	wg.Wait()
}

// TestEjected: what this gateway passes over is told with the route, and why.
func TestEjected(t *testing.T) {
	g := startGateway(t, &admin.Handler{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := "http://" + listener.Addr().String()
	listener.Close()
	put(t, g.router, "", slipswitch.Route{Path: "/a", Upstreams: slipswitch.To(down, g.echo)})
	for deadline := time.Now().Add(10 * time.Second); ; {
		response, err := g.Client().Get(g.public + "/a")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		item := decode[routeItem](t, g.want(200, "GET", "/v1/route?path=/a", ""))
		page := decode[routePage](t, g.want(200, "GET", "/v1/routes", ""))
		if len(item.Ejected) == 1 && len(page.Routes[0].Ejected) == 1 {
			if e := item.Ejected[0]; e.Upstream != down || !strings.Contains(e.Error, "refused") || time.Since(e.Since) > time.Minute {
				t.Errorf("got %+v", e)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %+v; want %s ejected", item, down)
		}
	}
}
