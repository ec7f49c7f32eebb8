package slipswitch

import (
	"iter"
	"sort"
	"strings"
)

// A node of the immutable radix tree. A published node never changes: insert
// and remove copy the nodes on the way to the key, five or six of them, and
// share all others with the tree before. A lookup is a loop without a lock;
// a swap of the root is a swap of everything.
//
//	"ide.example.com\x00/"
//	├── "a/"        leaf /a
//	│   └── "b/"    leaf /a/b
//	└── "web/ide-"
//	    ├── "1/"    leaf /web/ide-1
//	    └── "2/"    leaf /web/ide-2
//
// Strings are parts of the leaves' keys, so that a node costs no bytes beyond
// its own. (hashicorp/go-immutable-radix keeps two channels per key to watch
// single keys, which nobody here needs: 320 bytes a route against 80.)
type node struct {
	prefix   string  // the bytes on the edge that leads here
	labels   string  // the first byte of each child's prefix, ascending
	children []*node // in the order of labels
	leaf     *leaf   // the route that ends here, or nil
}

func (n *node) child(label byte) *node {
	if i := strings.IndexByte(n.labels, label); i >= 0 {
		return n.children[i]
	}
	return nil
}

// insert returns a tree in which key leads to l. n may be nil.
func (n *node) insert(key string, l *leaf) *node {
	if n == nil {
		return &node{prefix: key, leaf: l}
	}
	common := commonPrefix(n.prefix, key)
	if common < len(n.prefix) { // the edge forks
		below := *n
		below.prefix = n.prefix[common:]
		fork := &node{prefix: key[:common]}
		fork.labels, fork.children = below.prefix[:1], []*node{&below}
		return fork.insert(key, l)
	}
	copied := *n
	key = key[common:]
	if key == "" {
		copied.leaf = l
		return &copied
	}
	i := sort.Search(len(n.labels), func(i int) bool { return n.labels[i] >= key[0] })
	if i < len(n.labels) && n.labels[i] == key[0] {
		copied.children = append([]*node(nil), n.children...)
		copied.children[i] = n.children[i].insert(key, l)
		return &copied
	}
	copied.labels = n.labels[:i] + key[:1] + n.labels[i:]
	copied.children = make([]*node, len(n.children)+1)
	copy(copied.children, n.children[:i])
	copied.children[i] = &node{prefix: key, leaf: l}
	copy(copied.children[i+1:], n.children[i:])
	return &copied
}

// remove returns a tree without key, nil if nothing is left of it. The key
// must be in the tree.
func (n *node) remove(key string) *node {
	copied := *n
	key = key[len(n.prefix):]
	if key == "" {
		copied.leaf = nil
	} else {
		i := strings.IndexByte(n.labels, key[0])
		below := n.children[i].remove(key)
		copied.children = append([]*node(nil), n.children...)
		if below != nil {
			copied.children[i] = below
		} else {
			copied.children = append(copied.children[:i], copied.children[i+1:]...)
			copied.labels = n.labels[:i] + n.labels[i+1:]
		}
	}
	switch {
	case copied.leaf != nil || len(copied.children) > 1:
		return &copied
	case len(copied.children) == 0:
		return nil
	}
	// A node with one child and no leaf is only a piece of that child's edge.
	only := *copied.children[0]
	only.prefix = copied.prefix + only.prefix
	if only.leaf != nil { // a part of the leaf's key again, not a string of its own
		key := only.leaf.key
		only.prefix = key[len(key)-len(only.prefix):]
	}
	return &only
}

// find returns the leaf at exactly this key, or nil.
func (n *node) find(key string) *leaf {
	for n != nil && strings.HasPrefix(key, n.prefix) {
		if key = key[len(n.prefix):]; key == "" {
			return n.leaf
		}
		n = n.child(key[0])
	}
	return nil
}

// all yields the leaves with keys greater than after, in ascending order.
// The text so far is what leads to n.
func (n *node) all(after string) iter.Seq[*leaf] {
	return func(yield func(*leaf) bool) { n.walk(after, yield) }
}

func (n *node) walk(after string, yield func(*leaf) bool) bool {
	if n == nil {
		return true
	}
	if common := commonPrefix(n.prefix, after); common < len(n.prefix) {
		if common < len(after) && n.prefix[common] < after[common] {
			return true // all of it comes before
		}
		after = "" // all of it comes behind
	} else if after = after[common:]; after != "" {
		for i := range n.children {
			if n.labels[i] >= after[0] && !n.children[i].walk(after, yield) {
				return false
			}
		}
		return true
	} else if n.leaf != nil {
		return n.below(yield) // n itself is the key to come behind
	}
	if n.leaf != nil && !yield(n.leaf) {
		return false
	}
	return n.below(yield)
}

func (n *node) below(yield func(*leaf) bool) bool {
	for _, child := range n.children {
		if !child.walk("", yield) {
			return false
		}
	}
	return true
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// A cursor walks down a tree with a key that comes in pieces, so that a lookup
// need not put the key together, and remembers the deepest leaf it passed.
type cursor struct {
	node *node
	edge string // what is left of the edge into node
	best *leaf
}

func (n *node) cursor() cursor {
	if n == nil {
		n = new(node)
	}
	return cursor{node: n, edge: n.prefix}
}

// descend goes on by one piece and reports whether the tree goes on with it.
func descend[S string | []byte](c *cursor, piece S) bool {
	for {
		n := min(len(c.edge), len(piece))
		if c.edge[:n] != string(piece[:n]) {
			return false
		}
		c.edge, piece = c.edge[n:], piece[n:]
		if c.edge == "" && c.node.leaf != nil {
			c.best = c.node.leaf
		}
		if len(piece) == 0 {
			return true
		}
		next := c.node.child(piece[0])
		if next == nil {
			return false
		}
		c.node, c.edge = next, next.prefix
	}
}
