package routes

import (
	"strings"
	"sync"
)

// mapRouter is what one writes by hand: a map keyed host + path, probed from the
// longest prefix down, first with the host, then without.
var mapRouter = router{"map", "a map of host + path under an RWMutex, from the longest prefix down",
	func() table { return &lockedMap{m: map[string]int{}, hosts: map[string]int{}} }}

type lockedMap struct {
	mu    sync.RWMutex
	m     map[string]int
	hosts map[string]int // routes of each
}

func (t *lockedMap) put(r route) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, found := t.m[r.host+r.path]; !found {
		t.hosts[r.host]++
	}
	t.m[r.host+r.path] = r.n
	return nil
}

func (t *lockedMap) remove(r route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, found := t.m[r.host+r.path]; found {
		if t.hosts[r.host]--; t.hosts[r.host] == 0 {
			delete(t.hosts, r.host)
		}
	}
	delete(t.m, r.host+r.path)
}

func (t *lockedMap) lookup(a *asker, host, path string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var buffer [512]byte
	if t.hosts[host] > 0 {
		key := append(append(buffer[:0], host...), path...)
		for end := len(key); end >= len(host); end = len(host) + lastSlash(path, end-len(host)) {
			if n, found := t.m[string(key[:end])]; found {
				a.n = n
				return true
			}
		}
	}
	for end := len(path); end >= 0; end = lastSlash(path, end) {
		if n, found := t.m[path[:end]]; found {
			a.n = n
			return true
		}
	}
	return false
}

// lastSlash returns where the last slash before end is, or -1.
func lastSlash(path string, end int) int {
	if end <= 0 {
		return -1
	}
	return strings.LastIndexByte(path[:end], '/')
}
