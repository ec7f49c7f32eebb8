package slipswitch

import (
	"errors"
	"iter"
	"strings"
	"time"
)

// A Table is one immutable set of routes. All its methods may be called
// concurrently, and never wait.
type Table struct {
	version   uint64
	root      *node
	size      int
	wildcards int // how many routes have a wildcard host
	deepest   int // the most labels behind a wildcard, since there was none
	replaced  chan struct{}
}

// A leaf is a route as a table holds it. It is immutable.
type leaf struct {
	key     string // in the tree
	route   Route
	owner   string
	targets []target // the route's upstreams, parsed
	version uint64   // of the table in which it first stood
	place   *place
	held    *leaf // the next owner's route for this key, which follows this one
}

// ErrNoRoute is returned by a lookup that finds none.
var ErrNoRoute = errors.New("slipswitch: no route")

// A Match is what a lookup found.
type Match struct {
	Route   *Route // read-only
	Version uint64 // of the table that was read

	// Path is the request's path as the client spelt it, but with dot segments
	// resolved.
	Path string

	host string // the request's, as it came
	leaf *leaf
}

// Lookup finds the route for a request's host, with or without port, and its
// path as the client spelt it, percent-encoded and without query.
//
// The host levels are tried in this order: the host itself; "*.", then "**."
// patterns that match it, the longest first; routes for any host. At each level
// the longest path wins, and of two equal paths the exact one. Only a level
// without a route for this path leads to the next.
//
// It neither locks nor, but for paths with dot segments, allocates. The error
// is [ErrNoRoute], or an [*Error] with status 400 for an invalid host or path.
func (t *Table) Lookup(host, path string) (Match, error) {
	if path == "" {
		path = "/"
	}
	scan, err := scanPath(path)
	if err != nil {
		return Match{}, badRequest("path", path, err)
	}
	if scan.dotted {
		path = resolveDots(path)
	}
	name, plain, err := scanHost(host)
	if err != nil {
		return Match{}, badRequest("host", host, err)
	}
	var found *leaf
	if plain {
		found = lookupHost(t, name, path, scan.escaped)
	} else {
		var buf [MaxHost]byte
		found = lookupHost(t, appendHost(buf[:0], name), path, scan.escaped)
	}
	if found == nil {
		return Match{}, ErrNoRoute
	}
	return Match{&found.route, t.version, path, host, found}, nil
}

// lookupHost goes through the host levels for a canonical host.
func lookupHost[S string | []byte](t *Table, host S, path string, escaped bool) *leaf {
	if l := lookupPath(t, "", host, path, escaped); l != nil {
		return l
	}
	if t.wildcards > 0 {
		dot := nextDot(host, 0)
		if dot < len(host) {
			if l := lookupPath(t, "*", host[dot:], path, escaped); l != nil {
				return l
			}
		}
		labels := 0
		for i := range len(host) {
			if host[i] == '.' {
				labels++
			}
		}
		for ; dot < len(host); dot, labels = nextDot(host, dot+1), labels-1 {
			if labels > t.deepest {
				continue // no pattern is as long
			}
			if l := lookupPath(t, "**", host[dot:], path, escaped); l != nil {
				return l
			}
		}
	}
	if len(host) == 0 {
		return nil
	}
	return lookupPath(t, "", "", path, escaped)
}

func nextDot[S string | []byte](host S, from int) int {
	for ; from < len(host) && host[from] != '.'; from++ {
	}
	return from
}

// lookupPath finds the route for a path at one host level.
func lookupPath[S string | []byte](t *Table, stars string, host S, path string, escaped bool) *leaf {
	c := t.root.cursor()
	if stars != "" && !descend(&c, stars) || !descend(&c, host) || !descend(&c, "\x00") {
		return nil
	}
	if escaped {
		if !descendEscaped(&c, path) {
			return c.best
		}
	} else if !descend(&c, path) {
		return c.best
	}
	if descend(&c, "/") {
		descend(&c, "\x00")
	}
	return c.best
}

// descendEscaped walks down with the canonical form of path, a part at a time.
func descendEscaped(c *cursor, path string) bool {
	var buf [3 * 32]byte
	for path != "" {
		n := min(len(path), 32)
		for i := max(n-2, 0); i < n && n < len(path); i++ {
			if path[i] == '%' {
				n = i // not through the middle of an escape
			}
		}
		if !descend(c, appendPath(buf[:0], path[:n])) {
			return false
		}
		path = path[n:]
	}
	return true
}

// Version counts the changes: it grows by one with each table that replaces
// another.
func (t *Table) Version() uint64 { return t.version }

// Len returns the number of routes that stand, held ones not counted.
func (t *Table) Len() int { return t.size }

// Replaced returns a channel that is closed when another table takes this
// one's place. Read the next from the Router, not from here.
func (t *Table) Replaced() <-chan struct{} { return t.replaced }

// An Entry is a route in a table.
type Entry struct {
	Route *Route // read-only
	Owner string // whose it is

	// Held is true if another owner had the key first: the route has no effect
	// until that owner's route is deleted.
	Held bool

	// Version is that of the table in which the route first stood as it is.
	Version uint64

	leaf *leaf
}

// Activity returns when the route's path was last used, or the route put there
// if that was later. It goes on while the table is replaced.
func (e Entry) Activity() time.Time { return e.leaf.place.lastActive() }

// Use notes activity now.
func (e Entry) Use() { e.leaf.place.use(time.Now()) }

// Upstreams returns the URLs of the route's upstreams as [Tunnel.Upstream] has
// them, with port and without path; templates as the route has them.
func (e Entry) Upstreams() []string {
	urls := make([]string, len(e.leaf.targets))
	for i := range urls {
		urls[i] = e.leaf.targets[i].String()
	}
	return urls
}

// Tunnels returns how many tunnels are open at the route's host and path.
func (e Entry) Tunnels() int { return e.leaf.place.openTunnels() }

// At returns the entry that stands for a key.
func (t *Table) At(k Key) (Entry, bool) {
	key, _, err := k.canonical()
	if err != nil {
		return Entry{}, false
	}
	l := t.root.find(key)
	if l == nil {
		return Entry{}, false
	}
	return l.entry(false), true
}

// Of returns an owner's entry for a key, whether it stands or is held.
func (t *Table) Of(owner string, k Key) (Entry, bool) {
	key, _, err := k.canonical()
	if err != nil {
		return Entry{}, false
	}
	top := t.root.find(key)
	for l := top; l != nil; l = l.held {
		if l.owner == owner {
			return l.entry(l != top), true
		}
	}
	return Entry{}, false
}

// All yields every entry in the order of host, then path; behind each route
// those that are held for its key.
func (t *Table) All() iter.Seq[Entry] { return entries(t.root.all("")) }

// After yields what All does, from behind the key k: for paging.
func (t *Table) After(k Key) iter.Seq[Entry] {
	key, _, err := k.canonical()
	if err != nil {
		return func(func(Entry) bool) {}
	}
	return entries(t.root.all(key))
}

func entries(leaves iter.Seq[*leaf]) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for l := range leaves {
			for held := l; held != nil; held = held.held {
				if !yield(held.entry(held != l)) {
					return
				}
			}
		}
	}
}

func (l *leaf) entry(held bool) Entry { return Entry{&l.route, l.owner, held, l.version, l} }

// wildcardLabels returns how many labels stand behind the wildcard of the host
// in a tree key, or 0 if there is none.
func wildcardLabels(key string) int {
	if key[0] != '*' {
		return 0
	}
	return strings.Count(key[:strings.IndexByte(key, 0)], ".")
}
