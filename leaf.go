package slipswitch

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"unique"
)

// A leaf is a route as a table holds it. It is immutable.
//
// A table may hold a million routes, most of which differ only in their paths,
// upstreams and labels. So leaves share what they have in common. route puts the
// Route together again.
type leaf struct {
	key       string // in the tree
	place     *place
	options   *options
	upstreams *upstreams
	labels    *labels
	extra     *extra // nil for most routes
	version   uint64 // of the table in which it first stood
	shadowed  *leaf  // the next owner's route for this key, which follows this one
}

// options are the owner of a route, and all its fields but the key, upstreams, labels
// and meta, which are zero here.
type options struct {
	Route
	owner string
}

type upstreams struct {
	listed  []Upstream
	targets []target // the same, parsed
}

type labels []label // in the order of their names

type label struct{ name, value string }

// extra holds what few routes have.
type extra struct {
	path string // as it was put, if that differs from the tree key's
	meta json.RawMessage
}

// newLeaf returns a leaf for a valid route, without its place. It shares no
// memory that the caller could modify. The lock is held.
func (r *Router) newLeaf(key string, kept Key, route *Route, owner string, targets []target) *leaf {
	l := &leaf{key: key}
	o := options{*route, owner}
	o.Host, o.Path, o.Exact, o.Upstreams, o.Labels, o.Meta = "", "", false, nil, nil, nil
	l.options = r.recent.options.share(o.equal, func() *options { return &options{o.cloneOptions(), owner} })
	l.upstreams = r.recent.upstreams.share(
		func(u *upstreams) bool { return slices.Equal(u.listed, route.Upstreams) },
		func() *upstreams { return &upstreams{slices.Clone(route.Upstreams), targets} })
	if len(route.Labels) > 0 {
		l.labels = r.recent.labels.share(
			func(all *labels) bool { return all.equal(route.Labels) },
			func() *labels { return labelsOf(route.Labels) })
	}
	if spelled := l.routeKey(); spelled.Path != kept.Path || route.Meta != nil {
		l.extra = &extra{meta: compact(route.Meta)}
		if spelled.Path != kept.Path {
			l.extra.path = kept.Path
		}
	}
	return l
}

// recent are the last few different sets of each kind, for leaves to share. Similar
// routes are mostly put together, or are of a few kinds.
type recent struct {
	options   shelf[options]
	upstreams shelf[upstreams]
	labels    shelf[labels]
}

type shelf[T any] struct {
	sets [16]*T
	next int
}

// share returns a set that is equal, or a new one.
func (s *shelf[T]) share(equal func(*T) bool, create func() *T) *T {
	for _, set := range s.sets {
		if set != nil && equal(set) {
			return set
		}
	}
	set := create()
	s.sets[s.next%len(s.sets)] = set
	s.next++
	return set
}

func (o *options) equal(other *options) bool {
	return o == other || o.owner == other.owner && o.Route.Equal(&other.Route)
}

func labelsOf(m map[string]string) *labels {
	all := make(labels, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, label{unique.Make(name).Value(), m[name]}) // names are few
	}
	return &all
}

func (all *labels) equal(m map[string]string) bool {
	if len(*all) != len(m) {
		return false
	}
	for _, l := range *all {
		if value, ok := m[l.name]; !ok || value != l.value {
			return false
		}
	}
	return true
}

func (l *leaf) owner() string { return l.options.owner }

// routeKey returns the route's key as it was put. A nil leaf has the zero key, no
// labels, and no route.
func (l *leaf) routeKey() Key {
	if l == nil {
		return Key{}
	}
	k := splitKey(l.key)
	if l.extra != nil && l.extra.path != "" {
		k.Path = l.extra.path
	}
	return k
}

// label returns the value of a label.
func (l *leaf) label(name string) (value string, ok bool) {
	if l != nil && l.labels != nil {
		for _, l := range *l.labels {
			if l.name == name {
				return l.value, true
			}
		}
	}
	return "", false
}

// route returns the leaf's route.
func (l *leaf) route() *Route {
	if l == nil {
		return nil
	}
	r := new(l.options.Route)
	k := l.routeKey()
	r.Host, r.Path, r.Exact = k.Host, k.Path, k.Exact
	r.Upstreams = l.upstreams.listed
	if l != nil && l.labels != nil {
		r.Labels = make(map[string]string, len(*l.labels))
		for _, l := range *l.labels {
			r.Labels[l.name] = l.value
		}
	}
	r.Meta = l.meta()
	return r
}

// sameRoute reports whether two leaves at one key have equal routes of one owner.
func (l *leaf) sameRoute(other *leaf) bool {
	return l.options.equal(other.options) &&
		l.routeKey() == other.routeKey() &&
		slices.Equal(l.upstreams.listed, other.upstreams.listed) &&
		(l.labels == other.labels || l.labels != nil && other.labels != nil && slices.Equal(*l.labels, *other.labels)) &&
		bytes.Equal(l.meta(), other.meta())
}

func (l *leaf) meta() json.RawMessage {
	if l.extra == nil {
		return nil
	}
	return l.extra.meta
}
