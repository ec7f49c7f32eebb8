package routes

import (
	"strings"
	"testing"
	"time"
)

// All routers lead the same requests to the same routes, before and after
// changes; which of them cannot hold what, is known.
func TestRoutersAgree(t *testing.T) {
	cannot := map[string]string{
		"httprouter, nested prefixes": "conflicts",
		"gin, nested prefixes":        "conflicts",
	}
	for _, w := range append([]workload{pathPerWorkspace, hostPerWorkspace}, adversarial...) {
		for _, r := range routers {
			t.Run(r.name+", "+w.name, func(t *testing.T) {
				s := Subject{router: r, workload: w, n: 300, queries: map[string][]query{}}
				built, err := s.build(s.n, nil, func(int) error { return nil })
				if want := cannot[r.name+", "+w.name]; want != "" {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("got %v; want an error with %q", err, want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				s.table.Store(&built)
				if err := s.check(); err != nil {
					t.Error(err)
				}
				var ns float64
				if _, ok := built.(live); ok {
					if err := s.Change(time.Millisecond, &ns); err != nil || ns == 0 {
						t.Errorf("Change: %v, %v ns", err, ns)
					}
				}
				var done Stormed
				if err := s.Storm(Storm{Changes: 1000, For: 20 * time.Millisecond}, &done); err != nil || done.PerSecond == 0 {
					t.Errorf("Storm: %v, %+v", err, done)
				}
				if err := s.check(); err != nil {
					t.Errorf("after changes: %v", err)
				}
			})
		}
	}
}

// A router that leads elsewhere is found out.
func TestCheck(t *testing.T) {
	s := Subject{router: mapRouter, workload: pathPerWorkspace, n: 100, queries: map[string][]query{}}
	built, err := s.build(s.n, nil, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	wrong := pathPerWorkspace.route(7)
	wrong.n++
	built.put(wrong)
	s.table.Store(&built)
	if err := s.check(); err == nil {
		t.Error("a wrong number was not noticed")
	}
}
