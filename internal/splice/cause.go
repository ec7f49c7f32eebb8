package splice

import (
	"strconv"
	"syscall"
	"time"
)

// Side names a party to a tunnel. Client and Upstream also index what there is two of.
type Side uint8

const (
	Client Side = iota
	Upstream
	Gateway
)

func (s Side) String() string {
	switch s {
	case Client:
		return "client"
	case Upstream:
		return "upstream"
	case Gateway:
		return "gateway"
	}
	return "side " + strconv.Itoa(int(s))
}

// other returns the opposite end of the tunnel; s is Client or Upstream.
func (s Side) other() Side { return s ^ 1 }

// How says by what a tunnel ended.
type How string

const (
	FIN        How = "FIN"         // a side ended its stream, and in answer or after the linger the other did too
	RST        How = "RST"         // a side reset its connection
	Timeout    How = "timeout"     // one of the tunnel's clocks (By is Gateway), or the kernel gave a silent side up
	WriteError How = "write error" // a side could not be written to or read from; Errno says more
	CloseFrame How = "close frame" // a side sent a WebSocket Close frame
	Policy     How = "policy"      // Pair.Close
)

// Why says for what reason the gateway ended a tunnel. The engine has the following; Pair.Close brings its own.
type Why string

const (
	WhyIdle   Why = "idle"   // no byte either way for IdleTimeout
	WhyStall  Why = "stall"  // a side took no byte for StallTimeout while there were some for it
	WhyLife   Why = "life"   // LifeTimeout is over
	WhyPing   Why = "ping"   // the client sent nothing after a ping, for PongTimeout
	WhyLinger Why = "linger" // one side had ended, and nothing moved for LingerTimeout
)

// Cause is who ended a tunnel, and how. The first one stays: what our own closing provokes never overwrites it.
type Cause struct {
	By    Side
	How   How
	Why   Why           // the gateway's reason; empty when a peer ended the tunnel
	Errno syscall.Errno // of the call that failed, or 0
}

// Seen is the Close frame that came from a side. Code is 1005 when the frame had none.
// Reason is what a peer wrote: quote it before it meets a terminal or a log.
type Seen struct {
	Frame  bool
	Code   uint16
	Reason string
}

// Flow is what went one way.
type Flow struct {
	Bytes    int64 // taken from the side and passed on
	Messages int64 // whole WebSocket messages; 0 for an opaque flow
	Opaque   bool  // frames are not followed: the caller wanted it so, or the side broke the protocol

	LastData   time.Time // when the last byte came; zero before the first
	LastActive time.Time // the same without ping, pong, close, and messages under Config.ActivitySize
}

// Stats is a snapshot of a tunnel's counters, indexed by the side the bytes come from.
type Stats struct {
	From [2]Flow
}

// End is what remains of a tunnel.
type End struct {
	Cause
	Seen           [2]Seen // Close frames, by the side they came from
	Opened, Closed time.Time
	Stats
}
