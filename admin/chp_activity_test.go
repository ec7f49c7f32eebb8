package admin_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
)

func TestCHPInactiveSince(t *testing.T) {
	s := serve(t, &admin.Handler{})
	s.want(201, "POST", "/api/routes/a", target)
	entry, _ := s.router.Table().At(slipswitch.Key{Path: "/a"})
	at := entry.LastActive().UTC().Truncate(time.Millisecond)
	iso := func(d time.Duration) string { return at.Add(d).Format("2006-01-02T15:04:05.000Z") }
	zoned := url.QueryEscape(at.Add(time.Second).In(time.FixedZone("", 5400)).Format("2006-01-02T15:04:05.000000-07:00"))
	for _, parameter := range []string{"inactive_since", "inactiveSince"} {
		for value, want := range map[string]bool{
			iso(0):                        false,
			iso(time.Millisecond):         true,
			iso(-time.Millisecond):        false,
			zoned:                         true,
			"2100-01-01":                  true,
			"2100-01-01T00:00":            true,
			"2100-01-01T00:00:00":         true,
			"2100-01-01T00:00:00.5":       true,
			"2100-01-01T00:00:00Z":        true,
			"2100-01-01T00:00:00-0800":    true,
			"2100":                        true,
			"2000-01-01T00:00:00.123456Z": false,
			"":                            true,
		} {
			if got := len(s.paths("?"+parameter+"="+value)) == 1; got != want {
				t.Errorf("%s=%s: shown %v; want %v", parameter, value, got, want)
			}
		}
		for _, value := range []string{"x", "endoftheworld", "2026-13-01", "12", "1767323045", "2026-01-02T25:00:00Z"} {
			got := s.want(400, "GET", "/api/routes?"+parameter+"="+value, "")
			if want := fmt.Sprintf("Invalid datestamp '%s' must be ISO8601.", value); got.body != want {
				t.Errorf("got %q; want %q", got.body, want)
			}
		}
	}
	s.want(400, "GET", "/api/routes?inactive_since=%zz", "")
}

// last_activity moves with each POST, with requests, and with the bytes of a
// tunnel, also of one that was opened before its route was deleted and put
// again, or replaced.
func TestCHPLastActivity(t *testing.T) {
	g := startGateway(t, &admin.Handler{})
	body := `{"target":"` + g.echo + `"}`
	last := func() time.Time {
		t.Helper()
		data := decode[struct {
			At time.Time `json:"last_activity"`
		}](t, g.want(200, "GET", "/api/routes/user/a", ""))
		return data.At
	}
	// moves says whether what do does moves last_activity. Clocks have steps.
	moves := func(what string, want bool, do func()) {
		t.Helper()
		was := last()
		start := time.Now()
		until(t, "the clock goes on", func() bool { return time.Since(start) >= 5*time.Millisecond })
		do()
		if want { // the engine counts a moment after it has written
			until(t, what+" moves last_activity", func() bool { return last().After(was) })
			return
		}
		if last().After(was) {
			t.Errorf("%s has moved last_activity", what)
		}
	}
	g.want(201, "POST", "/api/routes/user/a", body)
	moves("GET of the API", false, func() { g.want(200, "GET", "/api/routes/user/a", "") })
	moves("list", false, func() { g.paths("") })
	version := g.router.Table().Version()
	moves("the same POST again", true, func() { g.want(201, "POST", "/api/routes/user/a", body) })
	if got := g.router.Table().Version(); got != version {
		t.Errorf("the same POST again: got version %d; want %d", got, version)
	}
	get := func(path, want string) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), "GET", g.public+path, nil)
		response, err := g.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if got, _ := io.ReadAll(response.Body); string(got) != want {
			t.Errorf("GET %s: the upstream saw %q; want %q", path, got, want)
		}
	}
	moves("a request", true, func() { get("/user/a/x%20y", "/user/a/x%20y") })
	conn := g.dial("/user/a/socket")
	moves("a message", true, func() { talk(t, conn, "x") })
	moves("nothing", false, func() {})
	g.want(204, "DELETE", "/api/routes/user/a", "")
	talk(t, conn, "the route is gone")
	g.want(201, "POST", "/api/routes/user/a", body)
	moves("a message, the route deleted and put again", true, func() { talk(t, conn, "x") })
	g.want(201, "POST", "/api/routes/user/a", target)
	moves("a message, the route replaced", true, func() { talk(t, conn, "x") })
	g.want(201, "POST", "/api/routes/user/a/b", target)
	moves("a message, a longer route added", true, func() { talk(t, conn, "x") })
}
