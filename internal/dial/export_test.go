package dial

import "net/netip"

// Check returns why a guarded name may not lead to an address.
func (d *Dialer) Check(addr netip.Addr) error { return d.check(addr) }

// Groups returns how many groups have dials in progress.
func (d *Dialer) Groups() int {
	d.bounds.mu.Lock()
	defer d.bounds.mu.Unlock()
	return len(d.bounds.groups)
}
