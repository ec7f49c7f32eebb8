package splice

import "errors"

// A Frozen is a tunnel at a standstill: nothing is read or written, none of its clocks runs out, and what it held is part of
// Record. Exactly one of Thaw and Release must be called.
//
//	        Freeze            Release
//	CARRIED ──────► FROZEN ───────────► gone from here, without an End
//	   ▲              │  │
//	   └──────────────┘  └── Record, and the two descriptors ──► Engine.Import, in another process
//	        Thaw
//
// At no moment may both carry it: Release follows the other's word that it has the tunnel, and Thaw that it has not.
type Frozen struct {
	// Record is all of the tunnel's state but the connections. What a peer sends stands in it: it must not be logged.
	Record []byte

	// Client and Upstream are the descriptors of the two connections, for as long as the tunnel is frozen.
	Client, Upstream int

	tunnel freezer
}

// freezer is a carrier that can hold a tunnel still.
type freezer interface {
	thaw()
	letGo()
}

// Why a tunnel cannot be frozen.
var (
	ErrEnding   = errors.New("splice: the tunnel's end is under way")
	ErrPortable = errors.New("splice: the tunnel is carried by copying")
	ErrFrozen   = errors.New("splice: the tunnel is frozen already")
)

// Thaw has the tunnel go on here.
func (f *Frozen) Thaw() { f.tunnel.thaw() }

// Release forgets the tunnel, which is carried elsewhere from now on. Its descriptors are closed here. Config.Ended is not
// called: the other's is, in time.
func (f *Frozen) Release() { f.tunnel.letGo() }
