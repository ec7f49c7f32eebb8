package store

var Coalesce = coalesce

// Moments returns how many moments of an owner the brake remembers.
func (s *Sync) Moments(owner string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.owners[owner].moments)
}

const OrderPause = orderPause
