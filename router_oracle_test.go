package slipswitch_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
	"pgregory.net/rapid"
)

// The oracle: a list of routes and rules, written without a thought of speed
// and without a line of the package under test.

type naiveRoute struct {
	slipswitch.Key
	owner, mark string
	segments    *[]string // of Path
}

type naiveRouter struct {
	routes  []naiveRoute // in the order in which they were put
	version uint64
}

// naiveSegments splits a path and decodes each segment once; an escaped slash
// or percent sign stays what it is.
func naiveSegments(path string) []string {
	parts := strings.Split(path, "/")[1:]
	out := []string{}
	for i, part := range parts {
		decoded, err := url.PathUnescape(part)
		if err != nil {
			panic(err)
		}
		last := i == len(parts)-1
		switch decoded {
		case ".", "..":
			if decoded == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, naiveEscape.Replace(decoded))
		}
	}
	return out
}

var naiveEscape = strings.NewReplacer("%", "%25", "/", "%2F")

func naiveHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if name, _, ok := strings.Cut(host, ":"); ok {
		host = strings.TrimSuffix(name, ".")
	}
	return host
}

// naiveLevel ranks how well a pattern fits a host; 0: not at all.
func naiveLevel(pattern, host string) int {
	labels := func(s string) int { return strings.Count(s, ".") + 1 }
	switch {
	case pattern == "":
		return 1
	case pattern == host:
		return 1000
	case strings.HasPrefix(pattern, "**.") && strings.HasSuffix(host, pattern[2:]) && host != pattern[2:]:
		return 10 + labels(pattern)
	case strings.HasPrefix(pattern, "*.") && strings.HasSuffix(host, pattern[1:]) && labels(host) == labels(pattern):
		return 500
	}
	return 0
}

func (n *naiveRouter) lookup(host, path string) string {
	host = naiveHost(host)
	request := naiveSegments(path)
	best, bestRank := "", [3]int{}
	for _, route := range n.routes {
		level := naiveLevel(route.Host, host)
		if level == 0 {
			continue
		}
		segments := *route.segments
		exact := 0
		if route.Exact {
			exact = 1
			if !slices.Equal(segments, request) {
				continue
			}
		} else {
			if segments[len(segments)-1] == "" {
				segments = segments[:len(segments)-1]
			}
			if len(request) < len(segments) || !slices.Equal(segments, request[:len(segments)]) {
				continue
			}
		}
		if rank := [3]int{level, len(segments), exact}; slices.Compare(rank[:], bestRank[:]) > 0 {
			best, bestRank = route.mark, rank // of two owners' the first one's
		}
	}
	return best
}

func (n *naiveRouter) put(route naiveRoute) {
	for i, old := range n.routes {
		if old.Key == route.Key && old.owner == route.owner {
			route.segments = old.segments
			n.routes[i] = route
			return
		}
	}
	n.routes = append(n.routes, route)
}

func (n *naiveRouter) delete(owner string, k slipswitch.Key) bool {
	before := len(n.routes)
	n.routes = slices.DeleteFunc(n.routes, func(r naiveRoute) bool { return r.Key == k && r.owner == owner })
	return len(n.routes) != before
}

func (n *naiveRouter) standing() int {
	keys := map[slipswitch.Key]bool{}
	for _, r := range n.routes {
		keys[r.Key] = true
	}
	return len(keys)
}

// Few names, alike, so that most lookups nearly miss or nearly match.
var (
	oracleHosts    = []string{"", "x", "a.x", "ab.x", "b.a.x", "a.b.a.x", "*.x", "**.x", "*.a.x", "**.a.x", "**.b.a.x"}
	oracleRequests = []string{"", "x", "a.x", "A.x:80", "ab.x", "b.a.x", "B.a.X.", "a.b.a.x", "b.b.a.x", "y.x", "q.b.a.x", "y", "ax"}
	oracleSegments = []string{"ide-1", "ide-12", "ide-", "a", "b", "%61", "a%2Fb", "a%2fb", "a%25", "@", "%40", ""}
	oracleDots     = append([]string{".", "..", "%2e", "%2E.", ".%2e", "..."}, oracleSegments...)
)

var oracleStars = strings.NewReplacer("**", "q.b", "*", "b")

// oracle takes random steps on both routers; choose returns a number below n.
type oracle struct {
	router  slipswitch.Router
	naive   naiveRouter
	choose  func(n int) int
	lookups int
	matches int
}

func (o *oracle) path(from []string, trailing bool) string {
	var b strings.Builder
	for range o.choose(5) {
		b.WriteString("/" + from[o.choose(len(from))])
	}
	if b.Len() == 0 || trailing && o.choose(4) == 0 {
		b.WriteString("/")
	}
	return b.String()
}

// key returns a key in one of its spellings, and as the oracle knows it.
func (o *oracle) key() (spelt, canonical slipswitch.Key) {
	spelt = slipswitch.Key{Host: oracleHosts[o.choose(len(oracleHosts))], Path: o.path(oracleSegments, true), Exact: o.choose(4) == 0}
	if len(o.naive.routes) > 0 && o.choose(2) == 0 {
		spelt = o.naive.routes[o.choose(len(o.naive.routes))].Key // hit what is there
	}
	canonical = spelt
	segments := naiveSegments(spelt.Path)
	if !spelt.Exact && segments[len(segments)-1] == "" {
		segments = segments[:len(segments)-1]
	}
	canonical.Path = "/" + strings.Join(segments, "/")
	if !spelt.Exact && len(segments) > 0 {
		canonical.Path += "/"
	}
	if o.choose(2) == 0 {
		spelt.Host = strings.ToUpper(spelt.Host)
	}
	return spelt, canonical
}

func (o *oracle) step() error {
	if o.choose(3) > 0 {
		return o.look()
	}
	next := naiveRouter{slices.Clone(o.naive.routes), o.naive.version}
	fails := o.choose(16) == 0
	var wrong error
	version, err := o.router.Update(func(tx *slipswitch.Txn) error {
		owner := []string{"", "chp", "git"}[o.choose(3)]
		tx = tx.As(&slipswitch.Owner{Name: owner})
		if o.choose(64) == 0 {
			tx.Clear()
			next.routes = slices.DeleteFunc(next.routes, func(r naiveRoute) bool { return r.owner == owner })
		}
		for range 1 + o.choose(3) {
			spelt, canonical := o.key()
			if o.choose(9) < 4 {
				want := next.delete(owner, canonical)
				if got := tx.Delete(spelt); got != want {
					wrong = fmt.Errorf("Delete(%v) by %q: got %v; want %v", spelt, owner, got, want)
				}
				continue
			}
			mark := fmt.Sprintf("http://up-%d", o.choose(3))
			segments := naiveSegments(canonical.Path)
			next.put(naiveRoute{canonical, owner, mark, &segments})
			tx.Put(slipswitch.Route{Host: spelt.Host, Path: canonical.Path, Exact: spelt.Exact, Upstreams: slipswitch.To(mark)})
		}
		if fails {
			return errors.New("no")
		}
		return nil
	})
	if wrong != nil {
		return wrong
	}
	if fails != (err != nil) {
		return fmt.Errorf("Update returned %v; want error: %v", err, fails)
	}
	if !fails {
		want := o.naive.version
		if !sameRoutes(o.naive.routes, next.routes) {
			want++
		}
		o.naive = next
		o.naive.version = want
	}
	if version != o.naive.version {
		return fmt.Errorf("version %d; want %d", version, o.naive.version)
	}
	if got, want := o.router.Table().Len(), o.naive.standing(); got != want {
		return fmt.Errorf("%d routes; want %d", got, want)
	}
	return nil
}

// sameRoutes compares what stands and what is shadowed, in whichever order the
// keys were put.
func sameRoutes(a, b []naiveRoute) bool {
	byKey := func(routes []naiveRoute) map[slipswitch.Key][]naiveRoute {
		m := map[slipswitch.Key][]naiveRoute{}
		for _, r := range routes {
			r.segments = nil
			m[r.Key] = append(m[r.Key], r)
		}
		return m
	}
	x, y := byKey(a), byKey(b)
	if len(x) != len(y) {
		return false
	}
	for k := range x {
		if !slices.Equal(x[k], y[k]) {
			return false
		}
	}
	return true
}

func (o *oracle) look() error {
	host := oracleRequests[o.choose(len(oracleRequests))]
	path := o.path(oracleDots, true)
	if len(o.naive.routes) > 0 && o.choose(2) == 0 {
		route := o.naive.routes[o.choose(len(o.naive.routes))]
		host = oracleStars.Replace(route.Host)
		path = strings.TrimSuffix(route.Path, "/") + []string{"", "/", "/a", "2", "%2F", "/..", "/.", "/../ide-1"}[o.choose(8)]
		if path == "" || path[0] != '/' {
			path = "/" + path
		}
	}
	o.lookups++
	match, err := o.router.Lookup(host, path)
	got := ""
	if err == nil {
		o.matches++
		got = match.Route().Upstreams[0].URL
	} else if !errors.Is(err, slipswitch.ErrNoRoute) {
		return fmt.Errorf("lookup of %q %q: %v", host, path, err)
	}
	if want := o.naive.lookup(host, path); got != want {
		return fmt.Errorf("lookup of %q %q: got %q; want %q among %v", host, path, got, want, o.naive.routes)
	}
	return nil
}

func TestRouterAgreesWithOracle(t *testing.T) {
	const steps, perTable = 1_000_000, 2_000
	rng := rand.New(rand.NewPCG(20261122, 1))
	lookups, matches := 0, 0
	for range steps / perTable {
		o := oracle{choose: rng.IntN}
		for range perTable {
			if len(o.naive.routes) > 24 { // a new start: the oracle is slow
				o = oracle{choose: rng.IntN, lookups: o.lookups, matches: o.matches}
			}
			if err := o.step(); err != nil {
				t.Fatal(err)
			}
		}
		lookups, matches = lookups+o.lookups, matches+o.matches
	}
	t.Logf("%d steps, %d of them lookups, %.0f%% of which matched", steps, lookups, 100*float64(matches)/float64(lookups))
}

func TestRouterAgreesWithOracleShrunk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := oracle{choose: func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if err := o.step(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
