package slipswitch

import (
	"iter"
	"math/bits"
	"slices"
	"strings"
)

// A node of the immutable radix tree. A published node never changes: insert
// and remove copy the nodes on the way to the key, five or six arrays of them,
// and share all others with the tree before. A lookup is a loop without a
// lock; a swap of the root is a swap of everything.
//
//	"ide.example.com\x00/"
//	├── "a/"        leaf /a
//	│   └── "b/"    leaf /a/b
//	└── "web/ide-"
//	    ├── "1/"    leaf /web/ide-1
//	    └── "2/"    leaf /web/ide-2
//
// In a table of a million routes a lookup's time is that of its cache misses.
// So a node is one cache line, children stand side by side in one array rather
// than behind pointers, and an edge of one byte is not compared once its label
// is. Strings are parts of the leaves' keys. (hashicorp/go-immutable-radix,
// which follows three pointers an edge and keeps two channels a route to watch
// single keys, takes as long in a small table and 1.8 times as long in one of a
// million routes.)
type node struct {
	labels   labels // the first byte of each child's prefix
	prefix   string // the bytes on the edge that leads here
	children []node // in ascending order of their labels
	leaf     *leaf  // the route that ends here, or nil
}

func (n *node) child(label byte) *node {
	if i, ok := n.labels.index(label); ok {
		return &n.children[i]
	}
	return nil
}

// labels are a set of bytes.
type labels [4]uint64

// index returns how many bytes of the set are less than label, and whether it
// is one of them.
func (l *labels) index(label byte) (i int, ok bool) {
	word, bit := label>>6, uint64(1)<<(label&63)
	switch word {
	case 3:
		i += bits.OnesCount64(l[2])
		fallthrough
	case 2:
		i += bits.OnesCount64(l[1])
		fallthrough
	case 1:
		i += bits.OnesCount64(l[0])
	}
	return i + bits.OnesCount64(l[word]&(bit-1)), l[word]&bit != 0
}

func (l *labels) flip(label byte) { l[label>>6] ^= 1 << (label & 63) }

// An edit remembers the arrays of nodes that one batch has made. Nobody else
// has seen them, so the batch may write them again instead of copying them for
// each of its changes. The nil edit remembers nothing, which is all right for
// a single change.
type edit map[*node]struct{} // by the first node of each array

// own returns nodes as an array that the batch may write.
func (e edit) own(nodes []node) []node {
	if len(nodes) > 0 {
		if _, ok := e[&nodes[0]]; ok {
			return nodes
		}
	}
	return e.note(slices.Clone(nodes))
}

func (e edit) note(nodes []node) []node {
	if e != nil && len(nodes) > 0 {
		e[&nodes[0]] = struct{}{}
	}
	return nodes
}

// insert returns a tree in which key leads to l.
func (n *node) insert(e edit, key string, l *leaf) *node {
	if n == nil {
		return &node{prefix: key, leaf: l}
	}
	inserted := n.with(e, key, l)
	return &inserted
}

func (n *node) with(e edit, key string, l *leaf) node {
	common := commonPrefix(n.prefix, key)
	if common < len(n.prefix) { // the edge forks
		below := *n
		below.prefix = n.prefix[common:]
		fork := node{prefix: key[:common], children: e.note([]node{below})}
		fork.labels.flip(below.prefix[0])
		return fork.with(e, key, l)
	}
	copied := *n
	key = key[common:]
	if key == "" {
		copied.leaf = l
		return copied
	}
	i, ok := n.labels.index(key[0])
	if ok {
		copied.children = e.own(n.children)
		copied.children[i] = n.children[i].with(e, key, l)
		return copied
	}
	copied.labels.flip(key[0])
	copied.children = e.note(slices.Insert(e.own(n.children), i, node{prefix: key, leaf: l}))
	return copied
}

// remove returns a tree without key, nil if nothing is left of it. The key
// must be in the tree.
func (n *node) remove(e edit, key string) *node {
	left := n.without(e, key)
	if left.leaf == nil && len(left.children) == 0 {
		return nil
	}
	return &left
}

func (n *node) without(e edit, key string) node {
	copied := *n
	key = key[len(n.prefix):]
	if key == "" {
		copied.leaf = nil
	} else {
		i, _ := n.labels.index(key[0])
		below := n.children[i].without(e, key)
		copied.children = e.own(n.children)
		if below.leaf != nil || len(below.children) > 0 {
			copied.children[i] = below
		} else {
			copied.children = slices.Delete(copied.children, i, i+1)
			copied.labels.flip(key[0])
		}
	}
	if copied.leaf != nil || len(copied.children) != 1 {
		return copied
	}
	// A node with one child and no leaf is only a piece of that child's edge.
	only := copied.children[0]
	only.prefix = copied.prefix + only.prefix
	if only.leaf != nil { // a part of the leaf's key again, not a string of its own
		key := only.leaf.key
		only.prefix = key[len(key)-len(only.prefix):]
	}
	return only
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
			if n.children[i].prefix[0] >= after[0] && !n.children[i].walk(after, yield) {
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
	for i := range n.children {
		if !n.children[i].walk("", yield) {
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
	node, edge := c.node, c.edge
	for {
		n := min(len(edge), len(piece))
		if n > 0 {
			if edge[:n] != string(piece[:n]) {
				return false
			}
			edge, piece = edge[n:], piece[n:]
		}
		if edge == "" && node.leaf != nil {
			c.best = node.leaf
		}
		if len(piece) == 0 {
			c.node, c.edge = node, edge
			return true
		}
		next := node.child(piece[0])
		if next == nil {
			return false
		}
		node, edge, piece = next, next.prefix[1:], piece[1:]
	}
}
