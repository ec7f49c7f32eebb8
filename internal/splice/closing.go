package splice

import "time"

// order is the gateway's wish to end a tunnel. The first one stays.
type order struct {
	code   uint16 // 0: without a Close frame
	reason string
	at     int64
}

const (
	// How long an ordered end may take in each of its steps.
	boundaryWait = int64(5 * time.Second) // for a place between two frames
	answerWait   = int64(5 * time.Second) // for the answer to a Close frame
	finWait      = int64(2 * time.Second) // for the other side's FIN after ours

	// How long a side's RST is kept from the other, for the sake of what was sent before.
	resetWait = int64(2 * time.Second)
)

// closing is how far one connection has come on its way to its end.
type closing struct {
	sent   int64 // when the last byte for it was on its way, in an ordered end; 0 before
	framed bool  // that was a Close frame of ours
	fin    int64 // when it was shut down for writing; 0 before
	over   bool  // nothing more comes from it that matters: EOF, or its Close frame
	broken bool  // a read or write failed
}

// due reports whether it is time to shut the connection down for writing, in an ordered end.
func (e *closing) due(now int64) bool {
	return e.sent != 0 && e.fin == 0 && !e.broken && (!e.framed || e.over || now >= e.sent+answerWait)
}

// deadline returns the time of the next step that is not waited for, in an ordered end.
func (e *closing) deadline(o *order) int64 {
	switch {
	case e.fin != 0:
		return e.fin + finWait
	case e.sent != 0:
		return e.sent + answerWait
	}
	return o.at + boundaryWait
}
