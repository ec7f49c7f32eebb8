package splice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/slipswitch/slipswitch/internal/wsframe"
)

// A record is a frozen tunnel as plain data. A process that has it and the tunnel's two descriptors can carry the tunnel on.
//
// Its times are nanoseconds of the machine's monotonic clock, 0 for never: a record means nothing on another machine, or after
// a restart of this one.
//
// A later version of this package may add fields. What an earlier one may ignore it just adds; of what a tunnel cannot be
// carried without, it names the feature in Needs, and a process that does not know the feature refuses the record.
type record struct {
	Version int      `json:"version"`
	Needs   []string `json:"needs,omitempty"`

	Opened int64 `json:"opened"`
	Idle   int64 `json:"idleTimeout,omitempty"`
	Stall  int64 `json:"stallTimeout,omitempty"`
	Life   int64 `json:"lifeTimeout,omitempty"`
	Linger int64 `json:"lingerTimeout,omitempty"`
	Ack    int64 `json:"ackTimeout,omitempty"`
	Sides  [2]recordedSide
	Pings  *recordedPings `json:"pings,omitempty"`
	Cause  *recordedCause `json:"cause,omitempty"`
	Order  *recordedOrder `json:"order,omitempty"`
	Half   *recordedHalf  `json:"half,omitempty"`
}

// recordVersion is that of records that are written, and the only one that can be read.
const recordVersion = 1

// features are those that this package knows of.
var features []string

// recordedSide is one connection, and the flow that comes from it.
type recordedSide struct {
	Frames       wsframe.State `json:"frames"`
	Opaque       bool          `json:"opaque,omitempty"`
	ActivitySize uint64        `json:"activitySize,omitempty"`
	Bytes        int64         `json:"bytes,omitempty"`
	Messages     int64         `json:"messages,omitempty"`
	LastData     int64         `json:"lastData,omitempty"`
	Active       int64         `json:"active,omitempty"`
	Stalled      int64         `json:"stalled,omitempty"`
	Sealed       bool          `json:"sealed,omitempty"`
	Room         bool          `json:"room,omitempty"`
	EOF          bool          `json:"eof,omitempty"`
	Pending      []byte        `json:"pending,omitempty"` // taken from this side, and not yet by the other

	Sent   int64 `json:"sent,omitempty"`
	Framed bool  `json:"framed,omitempty"`
	FIN    int64 `json:"fin,omitempty"`
	Over   bool  `json:"over,omitempty"`
}

type recordedPings struct {
	Every    int64   `json:"every,omitempty"`
	Patience int64   `json:"patience,omitempty"`
	Asked    int64   `json:"asked,omitempty"`
	OnItsWay int64   `json:"onItsWay,omitempty"`
	Answered int64   `json:"answered,omitempty"`
	Ours     bool    `json:"ours,omitempty"`
	Payload  [8]byte `json:"payload"`
	Slow     bool    `json:"slow,omitempty"`
	Part     []byte  `json:"part,omitempty"`
}

type recordedCause struct {
	By    Side          `json:"by"`
	How   How           `json:"how"`
	Why   Why           `json:"why,omitempty"`
	Errno syscall.Errno `json:"errno,omitempty"`
}

type recordedOrder struct {
	Code   uint16 `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
	At     int64  `json:"at"`
}

type recordedHalf struct {
	By Side  `json:"by"`
	At int64 `json:"at"`
}

// record returns the frozen tunnel as data. shift is what the machine's monotonic clock is ahead of the engine's.
func (p *Pair) record(pending [2][]byte, ends [2]closing, shift int64) record {
	abroad := func(at int64) int64 {
		if at == 0 {
			return 0
		}
		return at + shift
	}
	r := record{
		Version: recordVersion,
		Opened:  abroad(p.opened),
		Idle:    p.idleTimeout.Load(),
		Stall:   p.stallTimeout,
		Life:    p.lifeTimeout,
		Linger:  p.lingerTimeout,
		Ack:     p.ackTimeout,
	}
	for side := range p.flows {
		f, end := &p.flows[side], &ends[side]
		r.Sides[side] = recordedSide{
			Frames: f.frames.State(), Opaque: f.opaque.Load(), ActivitySize: f.activitySize,
			Bytes: f.bytes.Load(), Messages: f.messages.Load(),
			LastData: abroad(f.lastData.Load()), Active: abroad(f.active.Load()), Stalled: abroad(f.stalled.Load()),
			Sealed: f.sealed, Room: f.room, EOF: f.eof, Pending: pending[side],
			Sent: abroad(end.sent), Framed: end.framed, FIN: abroad(end.fin), Over: end.over,
		}
	}
	if ps := p.pings.Load(); ps != nil {
		r.Pings = &recordedPings{
			Every: ps.every.Load(), Patience: ps.patience.Load(), Asked: abroad(ps.asked.Load()),
			OnItsWay: abroad(ps.onItsWay.Load()), Answered: abroad(ps.answered.Load()),
			Ours: ps.ours.Load(), Payload: ps.payload, Slow: ps.slow, Part: ps.part[:ps.partial],
		}
	}
	if c := p.cause.Load(); c != nil {
		r.Cause = &recordedCause{c.By, c.How, c.Why, c.Errno}
	}
	if o := p.order.Load(); o != nil {
		r.Order = &recordedOrder{o.code, o.reason, abroad(o.at)}
	}
	if h := p.half.Load(); h != nil {
		r.Half = &recordedHalf{h.by, abroad(h.at)}
	}
	return r
}

// readRecord reads a record, which need not come from a friend.
func readRecord(b []byte) (*record, error) {
	r := new(record)
	decoder := json.NewDecoder(bytes.NewReader(b))
	if err := decoder.Decode(r); err != nil {
		return nil, fmt.Errorf("splice: the record is no JSON that is known: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("splice: there is more than the record")
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("splice: the record has version %d, and only %d is known", r.Version, recordVersion)
	}
	for _, need := range r.Needs {
		if !slices.Contains(features, need) {
			return nil, fmt.Errorf("splice: the record needs %.32q, which is not known", need)
		}
	}
	return r, r.check()
}

// maxPending is how many bytes a flow may bring along: more than a pipe and a buffer hold.
const maxPending = 4 << 20

// check returns what no tunnel has.
func (r *record) check() error {
	switch {
	case min(r.Idle, r.Stall, r.Life) < 0 || r.Linger <= 0:
		return errors.New("splice: a timeout in the record is negative, or there is no linger timeout")
	case r.Opened <= 0:
		return errors.New("splice: the record has no time of opening")
	case r.Cause != nil && (r.Cause.By > Gateway || r.Cause.How == "" || len(r.Cause.How) > maxWord || len(r.Cause.Why) > maxWord):
		return errors.New("splice: the record's cause is none")
	case r.Half != nil && r.Half.By > Upstream:
		return errors.New("splice: the record's half-close is of no side")
	case r.Order != nil && (len(r.Order.Reason) > wsframe.MaxControl || r.Order.Code != 0 && (r.Order.Code < 1000 || r.Order.Code > 4999)):
		return errors.New("splice: the record's order is none that can be given")
	case r.Order != nil && r.Cause == nil:
		return errors.New("splice: the record has an order without a cause")
	case r.Pings != nil && (len(r.Pings.Part) >= answerSize || min(r.Pings.Every, r.Pings.Patience) < 0):
		return errors.New("splice: the record's pings are none")
	}
	for side := range r.Sides {
		s := &r.Sides[side]
		switch {
		case len(s.Pending) > maxPending:
			return fmt.Errorf("splice: the record brings %d bytes along, more than %d", len(s.Pending), maxPending)
		case min(s.Bytes, s.Messages) < 0:
			return errors.New("splice: a count in the record is negative")
		case s.Frames.Masked != (Side(side) == Client):
			return errors.New("splice: the record's sides are mixed up")
		case (s.EOF || s.Over) && r.Half == nil && r.Order == nil:
			return errors.New("splice: a side in the record has ended, and the tunnel knows nothing of it")
		}
	}
	return nil
}

// maxWord is how long a How or Why may be.
const maxWord = 64

// revive returns the pair that a record describes, and how far its connections have come. The pair has no carrier yet.
func (r *record) revive(m *machine, ended func(End), shift int64) (*Pair, [2]closing, error) {
	now := m.clock.now()
	here := func(at int64) int64 { // not in the future, whatever the record says
		if at == 0 {
			return 0
		}
		return min(max(at-shift, 1), now)
	}
	p := &Pair{
		machine: m, ended: ended, opened: here(r.Opened),
		stallTimeout: r.Stall, lifeTimeout: r.Life, lingerTimeout: r.Linger, ackTimeout: r.Ack,
	}
	p.idleTimeout.Store(r.Idle)
	p.timer.expire = p.expire
	var ends [2]closing
	for side := range p.flows {
		f, s := &p.flows[side], &r.Sides[side]
		f.init(p, Side(side), s.Opaque, 0)
		if err := f.frames.SetState(s.Frames); err != nil {
			return nil, ends, err
		}
		f.activitySize = s.ActivitySize
		f.bytes.Store(s.Bytes)
		f.messages.Store(s.Messages)
		f.lastData.Store(here(s.LastData))
		f.active.Store(here(s.Active))
		f.stalled.Store(here(s.Stalled))
		f.sealed, f.room, f.eof = s.Sealed, s.Room, s.EOF
		ends[side] = closing{sent: here(s.Sent), framed: s.Framed, fin: here(s.FIN), over: s.Over}
	}
	if r.Pings != nil {
		ps := &pings{payload: r.Pings.Payload, slow: r.Pings.Slow, partial: len(r.Pings.Part)}
		ps.every.Store(r.Pings.Every)
		ps.patience.Store(r.Pings.Patience)
		ps.asked.Store(here(r.Pings.Asked))
		ps.onItsWay.Store(here(r.Pings.OnItsWay))
		ps.answered.Store(here(r.Pings.Answered))
		ps.ours.Store(r.Pings.Ours)
		copy(ps.part[:], r.Pings.Part)
		p.pings.Store(ps)
	}
	if c := r.Cause; c != nil {
		p.cause.Store(&Cause{c.By, c.How, c.Why, c.Errno})
	}
	if o := r.Order; o != nil {
		p.order.Store(&order{o.Code, o.Reason, here(o.At)})
	}
	if h := r.Half; h != nil {
		p.half.Store(&half{h.By, here(h.At)})
	}
	return p, ends, nil
}
