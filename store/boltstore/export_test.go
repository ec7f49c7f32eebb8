package boltstore

// Hold lets no write be committed until release is called.
func (s *Store) Hold() (release func()) {
	s.committing <- struct{}{}
	return func() { <-s.committing }
}

// Queued returns how many writes wait.
func (s *Store) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}
