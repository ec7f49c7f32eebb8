package splice

import (
	"crypto/rand"
	"sync/atomic"

	"github.com/slipswitch/slipswitch/internal/wsframe"
)

// flow is one direction of a tunnel: what came from one side and is for the other. Its carrier owns it;
// the counters may be read by anybody.
type flow struct {
	pair   *Pair
	from   Side
	opaque atomic.Bool

	bytes, messages  atomic.Int64
	lastData, active atomic.Int64 // clock times, 0 before the first

	frames       wsframe.Tracker
	activitySize uint64

	// stalled is when the receiver stopped taking bytes there are for it; 0 while it does.
	stalled atomic.Int64

	// What has happened to the flow.
	sealed bool // it ends here: what comes from its side from now on is read and discarded
	room   bool // it was sealed between two frames, so that one of ours may follow
	eof    bool // its side has ended
}

func (f *flow) init(p *Pair, from Side, opaque bool, activitySize int) {
	f.pair, f.from = p, from
	f.opaque.Store(opaque)
	f.frames.Masked = from == Client
	f.activitySize = uint64(max(activitySize, 0))
}

// take looks at bytes that came from the flow's side and returns those that are for the other, in the memory of p. Answers
// to pings of ours are not; what may be the beginning of one is set aside for unread. With ending set the flow is sealed
// after the first frame, or before it if that is a Close frame: it may be the answer to ours, and the other side must have
// ours, too.
func (f *flow) take(p []byte, now int64, ending bool) (keep []byte) {
	answers := f.answers()
	if answers != nil {
		answers.partial = 0
	}
	came := false // more than answers
	kept := 0
	for at := 0; at < len(p); {
		n, ended := len(p)-at, false
		if !f.opaque.Load() {
			if answers != nil && f.frames.Boundary() {
				n, whole := answers.answer(p[at:])
				if whole {
					answers.answered.Store(now)
				} else if n > 0 {
					answers.partial = copy(answers.part[:], p[at:])
				}
				if n > 0 {
					at += n
					continue
				}
			}
			if ending && f.frames.Boundary() && p[at]&0x0f == wsframe.Close {
				f.seal()
			}
			n, ended = f.frames.Next(p[at:])
			if f.frames.Violated() {
				f.opaque.Store(true)
				continue
			}
		}
		if !f.sealed {
			if kept < at {
				copy(p[kept:], p[at:at+n])
			}
			kept += n
		}
		at += n
		came = true
		if f.opaque.Load() {
			f.active.Store(now)
			break
		}
		f.judge(ended, now)
		if ended && ending {
			f.seal()
		}
	}
	if came {
		f.lastData.Store(now)
		f.pair.sent(now)
	}
	if kept > 0 {
		f.bytes.Add(int64(kept))
	}
	return p[:kept]
}

// skip is take for n bytes of the current frame's payload, or of an opaque flow, that nobody looks at.
func (f *flow) skip(n int, now int64, ending bool) {
	f.lastData.Store(now)
	f.pair.sent(now)
	f.bytes.Add(int64(n))
	if f.opaque.Load() {
		f.active.Store(now)
		return
	}
	ended := f.frames.Skip(uint64(n))
	f.judge(ended, now)
	if ended && ending {
		f.seal()
	}
}

// judge counts after a part of a frame has come by.
func (f *flow) judge(ended bool, now int64) {
	h := f.frames.Frame()
	if !h.Data() {
		if ended && h.Opcode == wsframe.Ping && f.from == Upstream {
			f.pair.asked(now)
		}
		return
	}
	if ended && h.Final {
		f.messages.Add(1)
	}
	if f.frames.MessageSize() >= f.activitySize {
		f.active.Store(now)
	}
}

// seal seals the flow if this is a boundary, or if no boundary will ever be known.
func (f *flow) seal() {
	if f.sealed {
		return
	}
	f.sealed = f.opaque.Load() || f.frames.Boundary()
	f.room = f.sealed && !f.opaque.Load() && !f.closed()
}

// closeFrame returns the Close frame that a sealed flow ends with, or nil where there can be none.
func (f *flow) closeFrame(o *order) []byte {
	if o.code == 0 || !f.room {
		return nil
	}
	if f.from == Upstream {
		return wsframe.AppendClose(nil, o.code, o.reason, nil)
	}
	var key [4]byte
	rand.Read(key[:])
	return wsframe.AppendClose(nil, o.code, o.reason, &key)
}

// closed reports whether the flow's side has sent a Close frame.
func (f *flow) closed() bool {
	_, _, ok := f.frames.Closed()
	return ok
}

func (f *flow) snapshot(c *clock) Flow {
	return Flow{
		Bytes:      f.bytes.Load(),
		Messages:   f.messages.Load(),
		Opaque:     f.opaque.Load(),
		LastData:   c.at(f.lastData.Load()),
		LastActive: c.at(f.active.Load()),
	}
}
