package dial

import "sync"

// Dials in progress are bounded, since each holds a descriptor and a request for as
// long as an upstream does not answer: one network that drops packets must not take
// all of both.
type bounds struct {
	mu     sync.Mutex
	dials  int
	groups map[any]int
}

// enter begins a dial, which lasts until leave is called, or returns why it may not
// begin.
func (d *Dialer) enter(group any) error {
	b := &d.bounds
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case d.MaxDials > 0 && b.dials >= d.MaxDials:
		return d.Over(false)
	case group != nil && b.groups[group] >= d.MaxDialsPerGroup:
		return d.Over(true)
	}
	b.dials++
	if group != nil {
		if b.groups == nil {
			b.groups = make(map[any]int)
		}
		b.groups[group]++
	}
	return nil
}

func (d *Dialer) leave(group any) {
	b := &d.bounds
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dials--
	if group == nil {
		return
	}
	if b.groups[group]--; b.groups[group] == 0 {
		delete(b.groups, group)
	}
}
