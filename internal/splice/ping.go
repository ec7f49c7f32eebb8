package splice

import (
	"crypto/rand"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch/internal/wsframe"
)

// Pings tell whether a quiet client is still there, and keep what stands between from forgetting the connection. Upstreams
// get none: they are near, and the kernel's probes find those that are gone.
//
//	heard ── every ──► ping ── patience, and no byte ──► end
//	  ▲                  │
//	  └──── any byte ────┘
//
// A ping goes between two frames of what the upstream sends. While no such place comes, or the client takes nothing, it
// waits and nothing is missing. Whatever comes from the client next is answer enough: it may be in the midst of a long
// frame, and of several pings it need answer only the last (RFC 6455, section 5.5.3). For that same reason a
// ping of the upstream's that is not answered yet stands for one of ours: a client that answered ours alone would leave
// the upstream waiting.
//
// The answers to our pings are known by their payload and taken out of what the client sends. Neither are bytes of the
// tunnel: they are not counted, are no activity, and put no idle timeout off, which would never run out else.

// pings is what a tunnel needs for them; one that never had any has none.
type pings struct {
	every, patience atomic.Int64
	asked           atomic.Int64 // when the first ping went to the client since it was last heard; 0: never
	onItsWay        atomic.Int64 // until when that may not have arrived
	answered        atomic.Int64 // when the last answer to one of ours came
	ours            atomic.Bool  // there was one of ours; payload is set and stays
	payload         [8]byte

	slow bool // it was seen on its way; of the upstream's flow

	// Of the client's flow: the beginning of what may be an answer, while the rest is to come.
	part    [answerSize]byte
	partial int
}

// An answer is a pong of the client's, and so masked: two bytes of header, the key, the payload.
const answerSize = 2 + 4 + 8

// SetPingEvery changes Config.PingEvery of the open tunnel.
func (p *Pair) SetPingEvery(d time.Duration) {
	if p.pings.Load() == nil {
		if d <= 0 {
			return
		}
		p.pings.CompareAndSwap(nil, new(pings))
	}
	p.pings.Load().every.Store(span(d))
	p.arm()
}

// heard returns when the last byte came from the client, an answer to us included.
func (p *Pair) heard(ps *pings) int64 {
	return max(p.opened, p.flows[Client].lastData.Load(), ps.answered.Load())
}

// pulse returns when to look after the client, be it for a ping or for the answer, or 0.
func (p *Pair) pulse() (at int64, answer bool) {
	ps := p.pings.Load()
	if ps == nil || p.half.Load() != nil || p.flows[Client].opaque.Load() || p.flows[Upstream].opaque.Load() {
		return 0, false
	}
	every := ps.every.Load()
	if every <= 0 {
		return 0, false
	}
	heard := p.heard(ps)
	if asked := ps.asked.Load(); asked > heard {
		patience := ps.patience.Load()
		if patience <= 0 {
			patience = every
		}
		return max(asked, ps.onItsWay.Load()) + patience, true
	}
	return heard + every, false
}

// asked notes that a ping goes to the client.
func (p *Pair) asked(now int64) {
	if ps := p.pings.Load(); ps != nil && ps.asked.Load() <= p.heard(ps) {
		ps.asked.Store(now)
	}
}

// freed notes that a side takes bytes again: if it is the client, a ping may have waited with them.
func (p *Pair) freed(f *flow, now int64) {
	if ps := p.pings.Load(); ps != nil && f.from == Upstream {
		ps.onItsWay.Store(now)
	}
}

// ping returns a ping for the client, to be written where a frame of the upstream's flow may follow. Only that flow's
// owner calls it.
func (p *Pair) ping(now int64) []byte {
	ps := p.pings.Load()
	if !ps.ours.Load() {
		rand.Read(ps.payload[:])
		ps.ours.Store(true)
	}
	p.asked(now)
	return wsframe.AppendPing(nil, ps.payload[:])
}

// unanswered ends the tunnel for want of an answer. A ping that is on its way to a slow client has until the stall timeout
// to arrive, and then there must be time for the answer. Only the owner of the upstream's flow calls it.
func (p *Pair) unanswered(onItsWay bool, now int64) {
	ps := p.pings.Load()
	wasOnItsWay := ps.slow
	ps.slow = onItsWay && (p.stallTimeout <= 0 || now < ps.asked.Load()+p.stallTimeout)
	if ps.slow || wasOnItsWay {
		ps.onItsWay.Store(now)
		return
	}
	p.fail(Cause{By: Gateway, How: Timeout, Why: WhyPing})
	p.end(1001, string(WhyPing)+" timeout")
}

// answer reports how many bytes at the beginning of b, which follows a whole frame of the client's, are an answer to us,
// or all of b if it may be the beginning of one.
func (ps *pings) answer(b []byte) (n int, whole bool) {
	n = min(len(b), answerSize)
	for i, c := range b[:n] {
		var want byte
		switch {
		case i == 0:
			want = 0x80 | wsframe.Pong
		case i == 1:
			want = 0x80 | byte(len(ps.payload))
		case i < 6:
			continue // the key
		default:
			want = ps.payload[i-6] ^ b[2+(i-6)&3]
		}
		if c != want {
			return 0, false
		}
	}
	return n, n == answerSize
}

// answers returns the pings whose answers are to be taken out of the flow, or nil.
func (f *flow) answers() *pings {
	if f.from != Client || f.eof {
		return nil
	}
	if ps := f.pair.pings.Load(); ps != nil && ps.ours.Load() {
		return ps
	}
	return nil
}

// unread puts what take has set aside of the last read in front of the next one, and returns how many bytes
// that are. They are set aside until take gets them back.
func (f *flow) unread(buffer []byte) int {
	if f.from != Client {
		return 0
	}
	ps := f.pair.pings.Load()
	if ps == nil {
		return 0
	}
	return copy(buffer, ps.part[:ps.partial])
}
