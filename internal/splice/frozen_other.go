//go:build !linux

package splice

// Freeze works on Linux only.
func (p *Pair) Freeze() (*Frozen, error) { return nil, ErrPortable }

// Import works on Linux only.
func (e *Engine) Import(record []byte, client, upstream int, ended func(End)) (*Pair, error) {
	return nil, ErrPortable
}
