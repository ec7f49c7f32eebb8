package balance_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch/internal/balance"
)

// A set is upstreams by their weights; those that are ill, by their numbers.
type set struct {
	name    string
	weights []int
	ill     []int
}

func (s set) Len() int { return len(s.weights) }
func (s set) Address(i int) balance.Address {
	return balance.Address{Scheme: "http", Host: fmt.Sprint(s.name, i)}
}
func (s set) Weight(i int) int   { return s.weights[i] }
func (s set) MaxWeight() int     { return slices.Max(s.weights) }
func (s set) Healthy(i int) bool { return !slices.Contains(s.ill, i) }

// of returns a set of n of weights 1, 2, 3, 1, 2, 3, …
func of(n int) (s set) {
	for i := range n {
		s.weights = append(s.weights, 1+i%3)
	}
	return s
}

func pick(b *balance.Balancer, s set, first int) (int, *balance.Lease) {
	p := b.Pick(s, first)
	return p.Next()
}

var errRefused = errors.New("refused")

// TestLeastLoaded: what is open is spread by weight, and what ends makes room.
func TestLeastLoaded(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {3, 1}, {1, 1, 2}} {
		var b balance.Balancer
		s := set{weights: weights}
		counts := make([]int, len(weights))
		var first []*balance.Lease
		sum := 0
		for _, w := range weights {
			sum += w
		}
		for range 100 * sum {
			i, l := pick(&b, s, -1)
			if counts[i]++; i == 0 {
				first = append(first, l)
			}
		}
		for i, w := range weights {
			if n := counts[i]; n < 95*w || n > 105*w {
				t.Errorf("%v: %d has %d leases; want about %d", weights, i, n, 100*w)
			}
		}
		for _, l := range first {
			l.End()
			l.End() // it has
		}
		if _, leases := b.Stats(); leases != 100*sum-counts[0] {
			t.Errorf("%v: %d leases are left; want %d", weights, leases, 100*sum-counts[0])
		}
		for range 50 {
			if i, _ := pick(&b, s, -1); i != 0 && len(weights) == 2 {
				t.Errorf("%v: got %d; want the idle one", weights, i)
			}
		}
	}
}

// TestOrder: the first that is wanted, then those that are healthy, then the others,
// each once.
func TestOrder(t *testing.T) {
	for name, test := range map[string]struct {
		first   int
		ill     []int
		refused []int
		before  []int // which come before all others; in any order
	}{
		"sticky":         {2, nil, nil, []int{2}},
		"sticky but ill": {2, []int{2}, nil, []int{0, 1, 3}},
		"refused":        {-1, nil, []int{0, 1}, []int{2, 3}},
		"both":           {0, []int{3}, []int{0}, []int{1, 2}},
		"all":            {-1, []int{0, 1}, []int{2, 3}, nil},
	} {
		for range 20 {
			var b balance.Balancer
			s := set{weights: []int{1, 2, 3, 4}, ill: test.ill}
			for _, i := range test.refused {
				for picked := -1; picked != i; {
					var l *balance.Lease
					p := b.Pick(set{weights: s.weights}, i)
					if picked, l = p.Next(); picked == i {
						l.Eject(errRefused)
					} else {
						l.End()
					}
				}
			}
			p := b.Pick(s, test.first)
			var got []int
			for i, l := p.Next(); i >= 0; i, l = p.Next() {
				got = append(got, i)
				l.End()
			}
			front := slices.Sorted(slices.Values(got[:len(test.before)]))
			if !slices.Equal(front, slices.Sorted(slices.Values(test.before))) || !slices.Equal(slices.Sorted(slices.Values(got)), []int{0, 1, 2, 3}) {
				t.Errorf("%s: got %v; want %v first, and each once", name, got, test.before)
			}
		}
	}
}

// TestEjections grow by one failure after another, and not by many at a time; they
// end when the address could be reached, and are forgotten.
func TestEjections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b balance.Balancer
		s := set{weights: []int{1, 1}}
		a := s.Address(0)
		fail := func(n int) {
			t.Helper()
			var leases []*balance.Lease
			for range n {
				i, l := pick(&b, s, 0)
				if i != 0 {
					t.Fatalf("got %d", i)
				}
				leases = append(leases, l)
			}
			for _, l := range leases {
				l.Eject(errRefused)
			}
		}
		lasts := func(want time.Duration) {
			t.Helper()
			time.Sleep(want - time.Millisecond)
			if _, err := b.Ejection(a); err != errRefused {
				t.Errorf("before %v: got %v; want %v", want, err, errRefused)
			}
			time.Sleep(time.Millisecond)
			if _, err := b.Ejection(a); err != nil {
				t.Errorf("after %v: got %v", want, err)
			}
		}
		began := time.Now()
		fail(50)
		if since, _ := b.Ejection(a); !since.Equal(began) {
			t.Errorf("since %v; want %v", since, began)
		}
		lasts(time.Second)
		for _, want := range []time.Duration{2, 4, 8, 16, 30, 30} {
			fail(1)
			lasts(want * time.Second)
		}
		i, l := pick(&b, s, 0)
		l.Reached()
		l.End()
		if addresses, _ := b.Stats(); i != 0 || addresses != 0 {
			t.Errorf("picked %d, and %d addresses are remembered", i, addresses)
		}
		fail(1)
		lasts(time.Second)
		fail(1)
		b.Reached(a) // as a check tells
		if _, err := b.Ejection(a); err != nil {
			t.Errorf("got %v; want none", err)
		}
		most := 0
		for i := range 200 {
			_, l := pick(&b, set{name: fmt.Sprint(i, "-"), weights: []int{1, 1}}, 0)
			l.Eject(errRefused)
			time.Sleep(time.Minute)
			addresses, _ := b.Stats()
			most = max(most, addresses)
		}
		if most > 70 {
			t.Errorf("up to %d of 200 were remembered", most)
		}
	})
}

// Of many each is picked by its weight, and the last one is found, too, when all
// others have been.
func TestPickOfMany(t *testing.T) {
	const each = 2000
	var b balance.Balancer
	var got [4]int
	for range 60 * each {
		i, l := pick(&b, of(60), -1)
		l.End()
		got[1+i%3]++
	}
	for weight, want := range []float64{0, 20. / 120, 40. / 120, 60. / 120} {
		if share := float64(got[weight]) / (60 * each); math.Abs(share-want) > 0.02 {
			t.Errorf("those of weight %d got %.3f of all; want %.3f", weight, share, want)
		}
	}
	p := b.Pick(of(1000), -1)
	seen := make(map[int]bool)
	for i, l := p.Next(); i >= 0; i, l = p.Next() {
		seen[i] = true
		l.End()
	}
	if len(seen) != 1000 {
		t.Errorf("got %d; want 1000", len(seen))
	}
}

// TestTags: only what was made with the key, for that scope, names an upstream.
func TestTags(t *testing.T) {
	key := []byte("key")
	upstreams := []string{"http://a", "http://b", "http://b/x"}
	tag := func(i int) string { return balance.Tag(key, "route", upstreams[i]) }
	many := slices.Repeat([]string{tag(0)[1:] + "A"}, 7)
	for name, test := range map[string]struct {
		values []string
		want   int
	}{
		"none":         {nil, -1},
		"first":        {[]string{tag(0)}, 0},
		"path":         {[]string{tag(2)}, 2},
		"others":       {[]string{"", "x", tag(1)}, 1},
		"first of two": {[]string{tag(1), tag(0)}, 1},
		"scope":        {[]string{balance.Tag(key, "another", upstreams[0])}, -1},
		"key":          {[]string{balance.Tag(nil, "route", upstreams[0])}, -1},
		"longer":       {[]string{tag(0) + "A"}, -1},
		"eighth":       {append(many, tag(0)), 0},
		"ninth":        {append(many, many[0], tag(0)), -1},
	} {
		if got := balance.Tagged(slices.Values(test.values), len(upstreams), tag); got != test.want {
			t.Errorf("%s: got %d; want %d", name, got, test.want)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{2, 10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var balancer balance.Balancer
			s := named{set: of(n)}
			for i := range n {
				s.addresses = append(s.addresses, s.set.Address(i))
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p := balancer.Pick(&s, -1)
					_, l := p.Next()
					l.End()
				}
			})
		})
	}
}

// named makes no names while it is asked.
type named struct {
	set
	addresses []balance.Address
}

func (n *named) Address(i int) balance.Address { return n.addresses[i] }
