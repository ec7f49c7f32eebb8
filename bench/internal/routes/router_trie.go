package routes

import (
	"strings"
	"sync"
)

var trieRouter = router{"trie", "a trie of segments, a map in each node, under an RWMutex",
	func() table { return &lockedTrie{hosts: map[string]*trieNode{}} }}

type lockedTrie struct {
	mu    sync.RWMutex
	hosts map[string]*trieNode
}

type trieNode struct {
	children map[string]*trieNode
	n        int
	set      bool
}

func (t *lockedTrie) put(r route) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	node := t.hosts[r.host]
	if node == nil {
		node = new(trieNode)
		t.hosts[r.host] = node
	}
	for rest := r.path; rest != ""; {
		var segment string
		segment, rest = firstSegment(rest)
		next := node.children[segment]
		if next == nil {
			if node.children == nil {
				node.children = map[string]*trieNode{}
			}
			next = new(trieNode)
			node.children[segment] = next
		}
		node = next
	}
	node.n, node.set = r.n, true
	return nil
}

// remove leaves no empty nodes behind.
func (t *lockedTrie) remove(r route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	node := t.hosts[r.host]
	if node == nil {
		return
	}
	node.remove(r.path)
	if !node.set && len(node.children) == 0 {
		delete(t.hosts, r.host)
	}
}

func (node *trieNode) remove(path string) {
	if path == "" {
		node.set = false
		return
	}
	segment, rest := firstSegment(path)
	if next := node.children[segment]; next != nil {
		next.remove(rest)
		if !next.set && len(next.children) == 0 {
			delete(node.children, segment)
		}
	}
}

func (t *lockedTrie) lookup(a *asker, host, path string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.hosts[host].lookup(a, path) || t.hosts[""].lookup(a, path)
}

func (node *trieNode) lookup(a *asker, path string) (found bool) {
	for node != nil {
		if node.set {
			a.n, found = node.n, true
		}
		if path == "" {
			break
		}
		var segment string
		segment, path = firstSegment(path)
		node = node.children[segment]
	}
	return found
}

// firstSegment cuts a path, with the slash in front, behind its first segment.
func firstSegment(path string) (segment, rest string) {
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[1 : i+1], path[i+1:]
	}
	return path[1:], ""
}
