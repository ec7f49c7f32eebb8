package boltstore

// Hold lets no write be committed until release is called.
func (s *Store) Hold() (release func()) {
	s.committing <- struct{}{}
	return func() { <-s.committing }
}

// HoldFile lets no commit that has begun go on until release is called.
func (s *Store) HoldFile() (release func()) {
	tx, err := s.db.Begin(true)
	if err != nil {
		panic(err)
	}
	return func() { tx.Rollback() }
}

// Queued returns how many writes wait.
func (s *Store) Queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}
