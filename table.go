package slipswitch

import (
	"bytes"
	"errors"
	"iter"
	"strings"
	"time"
	"unsafe"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/slipswitch/slipswitch/internal/canon"
)

// A Table is one immutable set of routes. Its methods may be called concurrently,
// and never wait.
//
// The routes are in an immutable radix tree. The next table shares all of it but
// the paths to what has changed. A lookup is one search for the longest prefix at
// each level of precedence.
type Table struct {
	version   uint64
	tree      *tree
	wildcards int // how many routes have a wildcard host
	deepest   int // the most labels after a wildcard, since there was none
	replaced  chan struct{}
}

type (
	tree = iradix.Tree[*leaf]
	node = iradix.Node[*leaf]
)

// treeKey returns the bytes of a key for the tree, without copying them: the tree
// keeps them, and never writes to them.
func treeKey(key string) []byte { return unsafe.Slice(unsafe.StringData(key), len(key)) }

// find returns the leaf at exactly this key, or nil.
func (t *Table) find(key string) *leaf {
	l, _ := t.tree.Get(treeKey(key))
	return l
}

// from yields the leaves with keys not less than key, in ascending order.
func (t *Table) from(key string) iter.Seq[*leaf] {
	return func(yield func(*leaf) bool) {
		rest := t.tree.Root().Iterator()
		rest.SeekLowerBound(treeKey(key))
		for _, l, ok := rest.Next(); ok && yield(l); _, l, ok = rest.Next() {
		}
	}
}

// A replacement is the change at one key. A nil leaf means no route.
type replacement struct {
	key     string
	was, is *leaf
}

// with returns the table that has changes, which are in the order of keys: so
// the tree's nodes that a lookup goes through come to lie beside each other.
func (t *Table) with(changes []replacement) *Table {
	next := &Table{version: t.version + 1, wildcards: t.wildcards, deepest: t.deepest, replaced: make(chan struct{})}
	txn := t.tree.Txn()
	for _, c := range changes {
		n := wildcardLabels(c.key)
		if c.is == nil {
			txn.Delete(treeKey(c.key))
			if n > 0 {
				next.wildcards--
			}
			continue
		}
		txn.Insert(treeKey(c.key), c.is)
		if c.was == nil && n > 0 {
			next.wildcards++
			next.deepest = max(next.deepest, n)
		}
	}
	if next.wildcards == 0 {
		next.deepest = 0
	}
	next.tree = txn.CommitOnly()
	return next
}

// ErrNoRoute is returned by a lookup that finds none.
var ErrNoRoute = errors.New("slipswitch: no route")

// A Match is the result of a lookup: a route, and what it captures of the request.
type Match struct {
	Version uint64 // of the table that was read

	// Path is the request's path as the client spelt it, with dot segments
	// resolved.
	Path string

	host     string // the request's, as it came
	leaf     *leaf
	captured *captured // what the route's templates take out of the request; nil: nothing, or it is not admitted
}

// Route returns the route that was found, or nil for the zero Match. It is put
// together at each call from what routes share: [Match.Key] and [Match.Label]
// cost less. The route must not be modified.
func (m Match) Route() *Route {
	if m.leaf == nil {
		return nil
	}
	return m.leaf.route()
}

// Key returns the key of the route that was found.
func (m Match) Key() Key { return m.leaf.routeKey() }

// Label returns the value of one of the route's labels, and whether it has it.
func (m Match) Label(name string) (value string, ok bool) { return m.leaf.label(name) }

// options returns the route without its key, upstreams, labels and meta, which are
// zero.
func (m Match) options() *Route { return &m.leaf.options.Route }

// Lookup finds the route for the host of a request, with or without a port, and
// for its path as the client spelt it, percent-encoded and without query.
//
// The host levels are tried in this order: the host itself; "*." patterns that
// match it, then "**." patterns, the longest first; any host. At each level the
// longest path wins, and of two equal paths the exact one. Only if a level has no
// route for the path is the next one tried.
//
// Lookup does not lock, and does not allocate, except for paths with dot segments.
// The error is [ErrNoRoute], or an [*Error] with status 400 for an invalid host
// or path.
func (t *Table) Lookup(host, path string) (Match, error) {
	if path == "" {
		path = "/"
	}
	scan, err := canon.ScanPath(path)
	if err != nil {
		return Match{}, badRequest("path", path, err)
	}
	if scan.Dotted {
		path = canon.ResolveDots(path)
	}
	name, plain, err := canon.ScanHost(host)
	if err != nil {
		return Match{}, badRequest("host", host, err)
	}
	var found *leaf
	if len(name)+len(path)+32 <= shortKey {
		var room [shortKey]byte
		found = t.search(room[:], name, plain, path, scan.Escaped)
	} else {
		found = t.searchLong(name, plain, path, scan.Escaped)
	}
	if found == nil {
		return Match{}, ErrNoRoute
	}
	return Match{Version: t.version, Path: path, host: host, leaf: found}, nil
}

// shortKey is the room for the keys of most requests. The less stack a lookup uses,
// the less it has to clear.
const shortKey = 256

// searchLong is search for a request of any length.
//
//go:noinline
func (t *Table) searchLong(host string, plain bool, path string, escaped bool) *leaf {
	var room [len("**") + MaxHost + len("\x00") + MaxPath + 2*len("/\x00%2F")]byte
	return t.search(room[:], host, plain, path, escaped)
}

// search tries the levels of precedence. It writes the key into room once: the key
// of each level is a suffix of the one before, except for its stars.
//
//	ide.example.com NUL path / NUL    the host itself
//	  *.example.com NUL path / NUL    one label
//	 **.example.com NUL path / NUL    one or more, then the same for .com
//	                NUL path / NUL    any host
//
// A path that is too long for the room is longer than any route's, and is cut off.
func (t *Table) search(room []byte, host string, plain bool, path string, escaped bool) *leaf {
	key := room[:len("**")]
	start := len(key)
	if plain {
		key = append(key, host...)
	} else {
		key = canon.AppendHost(key, host)
	}
	end := len(key)
	key = append(key, 0)
	limit := cap(key) - len("%2F/\x00")
	if escaped {
		key = canon.AppendPath(key, path, limit)
	} else {
		key = append(key, path[:min(len(path), limit-len(key))]...)
	}
	key = append(key, '/', 0)

	root := t.tree.Root()
	if _, l, ok := root.LongestPrefix(key[start:]); ok {
		return l
	}
	if t.wildcards > 0 {
		if l := t.searchWildcards(root, key, start, end); l != nil {
			return l
		}
	}
	if start == end {
		return nil
	}
	_, l, _ := root.LongestPrefix(key[end:])
	return l
}

// searchWildcards puts stars before each dot of the host, which is
// key[start:end].
func (t *Table) searchWildcards(root *node, key []byte, start, end int) *leaf {
	labels := bytes.Count(key[start:end], []byte("."))
	for dot, first := start, true; dot < end; dot++ {
		if key[dot] != '.' {
			continue
		}
		key[dot-1] = '*'
		if first {
			if _, l, ok := root.LongestPrefix(key[dot-1:]); ok {
				return l
			}
			first = false
		}
		if key[dot-2] = '*'; labels <= t.deepest { // else no pattern is as long
			if _, l, ok := root.LongestPrefix(key[dot-2:]); ok {
				return l
			}
		}
		labels--
	}
	return nil
}

// Version returns the table's number, which is one more than that of the table
// before it.
func (t *Table) Version() uint64 { return t.version }

// Len returns the number of routes, without shadowed ones.
func (t *Table) Len() int { return t.tree.Len() }

// Replaced returns a channel that is closed when another table has replaced this
// one in its Router. Router.Table returns that.
func (t *Table) Replaced() <-chan struct{} { return t.replaced }

// An Entry is a route in a table.
type Entry struct {
	Owner string // the name of the route's owner

	// Shadowed is true if another owner had the key first: the route has no
	// effect until that owner's route is deleted.
	Shadowed bool

	// Version is the version of the first table that had the route as it is.
	Version uint64

	leaf *leaf
}

// Route returns the route, or nil for the zero Entry. It is put together at each
// call from what routes share: [Entry.Key] and [Entry.Label] cost less. The route
// must not be modified.
func (e Entry) Route() *Route {
	if e.leaf == nil {
		return nil
	}
	return e.leaf.route()
}

// Key returns the route's key.
func (e Entry) Key() Key { return e.leaf.routeKey() }

// Label returns the value of one of the route's labels, and whether it has it.
func (e Entry) Label(name string) (value string, ok bool) { return e.leaf.label(name) }

// LastActive returns when there was last activity at the route's host and path
// (see [ActivityKinds]), or when the route was put there if that was later. It
// counts activity up to the call, also for an entry of an old table.
func (e Entry) LastActive() time.Time { return e.leaf.place.lastActive() }

// Use notes activity at the route's host and path, now.
func (e Entry) Use() { e.leaf.place.use(time.Now()) }

// Upstreams returns the URLs of the route's upstreams in the form of
// [Tunnel.Upstream], with port and without path. Templates are not expanded.
func (e Entry) Upstreams() []string {
	urls := make([]string, len(e.leaf.upstreams.targets))
	for i := range urls {
		urls[i] = e.leaf.upstreams.targets[i].String()
	}
	return urls
}

// Tunnels returns how many tunnels are open at the route's host and path.
func (e Entry) Tunnels() int { return e.leaf.place.openTunnels() }

// At returns the entry that has effect at a key: the one that is not shadowed.
func (t *Table) At(k Key) (Entry, bool) {
	key, _, err := k.canonical()
	if err != nil {
		return Entry{}, false
	}
	l := t.find(key)
	if l == nil {
		return Entry{}, false
	}
	return l.entry(false), true
}

// Of returns an owner's entry at a key, which may be shadowed.
func (t *Table) Of(owner string, k Key) (Entry, bool) {
	key, _, err := k.canonical()
	if err != nil {
		return Entry{}, false
	}
	top := t.find(key)
	for l := top; l != nil; l = l.shadowed {
		if l.owner() == owner {
			return l.entry(l != top), true
		}
	}
	return Entry{}, false
}

// All yields every entry in the order of host, then path. After each entry come
// those that it shadows.
func (t *Table) All() iter.Seq[Entry] { return entries(t.from("")) }

// After yields the entries of All from the first key after k on: for paging.
func (t *Table) After(k Key) iter.Seq[Entry] {
	key, _, err := k.canonical()
	if err != nil {
		return func(func(Entry) bool) {}
	}
	return entries(t.from(key + "\x00"))
}

func entries(leaves iter.Seq[*leaf]) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for l := range leaves {
			for at := l; at != nil; at = at.shadowed {
				if !yield(at.entry(at != l)) {
					return
				}
			}
		}
	}
}

func (l *leaf) entry(shadowed bool) Entry {
	return Entry{l.owner(), shadowed, l.version, l}
}

// wildcardLabels returns how many labels follow the wildcard of the host in a
// tree key, or 0 if there is none.
func wildcardLabels(key string) int {
	if key[0] != '*' {
		return 0
	}
	return strings.Count(key[:strings.IndexByte(key, 0)], ".")
}
