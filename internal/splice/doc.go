// Package splice carries tunnels: two connections in, counters and one end out. It knows connections and WebSocket
// frames, never routes.
//
// # Use
//
// An Engine takes two connections and what has been read from them already, and owns them from then on. A
// Pair is the handle: Stats at any time, Close to end the tunnel on purpose, and exactly one End when both connections
// are closed, which says who ended it and how.
//
// # What is carried
//
// A tunnel is two flows, one from each side. A flow takes bytes from its side, follows the WebSocket frames in them, and
// passes them on unchanged, so that it always knows three things: how many whole messages went by, whether anything was
// more than a ping, and whether a frame of ours could follow. A flow that breaks the protocol becomes opaque: its bytes
// still pass, nothing else is known of it. All that there is to know of a flow stands in its fields, none of it
// in where some goroutine is blocked.
//
// # Two pumps
//
// Plain sockets on Linux are carried by loops, one goroutine for each processor. A loop has its own epoll, which stands in
// the runtime's poller as a descriptor like any other, and duplicates of its tunnels' descriptors, which do
// not. They are registered edge-triggered and once for all, so between two bytes a tunnel needs nothing done and has nothing: two
// descriptors, no goroutine, no buffer, no pipe, no timer.
//
//	            bytes come                    receiver takes no more
//	┌────────┐ ───────────► ┌───────────────┐ ───────────► ┌────────────────────────┐
//	│ PARKED │              │    ACTIVE     │              │         STUCK          │
//	│        │ ◄─────────── │ loop's buffer │ ◄─────────── │ holds bytes or a pipe; │
//	└────────┘    EAGAIN    │   or a pipe   │  it does     │    nothing is read     │
//	                        └───────────────┘  again       └────────────────────────┘
//	                     budget │     ▲ others had
//	                    used up ▼     │ their turn
//	                         ┌───────────┐
//	                         │   READY   │
//	                         └───────────┘
//
// A turn reads into the one buffer of the loop and writes from there. Where 32 KiB or more of the current frame are to come,
// exactly the rest of it goes through a pipe, by splice(2), and never enters the process. What the receiver does
// not take stays with the flow: the buffer itself if few are lent, a copy otherwise, or the pipe; then nothing is
// read until it is gone. After 256 KiB a flow waits until the other tunnels of its loop had their turn.
//
// Everything else is carried by the portable pump, with the same results: TLS, connections wrapped in something unknown, and all of
// them on other systems. It is a goroutine for each flow that blocks in Read, with 1 KiB while quiet.
//
// # How a tunnel ends
//
//	      FIN from one side                       FIN from the other
//	OPEN ───────────────────► HALF-CLOSED ──────────────────────────────► CLOSED
//	 │                             │ linger over                             ▲
//	 │ Close, or a clock runs out  ▼                                         │
//	 ├───────────────────────► PARTING: each side by itself                  │
//	 │                         boundary ≤5 s ► Close frame ► answer ≤5 s     │
//	 │                         ► FIN ► its FIN ≤2 s, or RST ─────────────────┤
//	 │ RST, or a failed call                                                 │
//	 └───────────────────────► ABORTING: the other side gets what             │
//	                           was sent before, ≤2 s, then RST ──────────────┘
//
// The first cause stays, by one compare-and-swap. A FIN is no cause yet: it becomes one when the other side's
// completes the close, or the linger runs out. A Close frame, a reset, a clock and an order are causes at once. A
// connection is closed only after its peer's end has been read, or its time is over, because closing with unread input
// makes the kernel send RST and take back what was on its way.
//
// # Clocks
//
// There is one timing wheel with ticks of 50 ms, and one goroutine for it. A deadline that is put off by every byte stays
// where it is in the wheel and is looked at again when it comes up. What a client is owed in pings is looked at in the
// same way, by the tunnel's own entry; see ping.go.
//
// # Files
//
//	engine.go, pair.go       starting, the handle of a tunnel, its clocks, its cause
//	flow.go                  one direction: counters, frames, the place where a Close frame or ping of ours may follow
//	closing.go, cause.go     the steps of an ordered end; who ended a tunnel, how and why
//	loops_linux.go,          the pump of plain sockets on Linux; its seal writes the Close frame
//	  looped_linux.go
//	portable.go              the pump of everything else; its obey writes the Close frame
//	ping.go, ack.go          quiet clients; machines that have vanished
//	clock.go                 the timing wheel
//	frozen.go, record.go     a tunnel that goes to another process
package splice
