package splice_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// script is what one peer does: it sends its stream in pieces, pausing now and then, and shuts down.
type script struct {
	stream []byte
	pieces []int
	pause  int
}

// newScript makes a random stream of frames, sometimes broken ones.
func newScript(r *rand.Rand, from splice.Side) script {
	var s script
	open := false
	for range r.IntN(12) {
		n := 0
		switch r.IntN(5) {
		case 0, 1:
			n = r.IntN(200)
		case 2:
			n = r.IntN(70_000)
		case 3:
			n = 32<<10 - 3 + r.IntN(6)
		case 4:
			n = r.IntN(400_000)
		}
		switch r.IntN(8) {
		case 0:
			s.stream = append(s.stream, frame(from, 9, true, noise(min(n, 125)))...)
		case 1:
			if r.IntN(4) == 0 {
				s.stream = append(s.stream, noise(r.IntN(100_000))...)
			}
		default:
			opcode := byte(2)
			if open {
				opcode = 0
			}
			final := r.IntN(3) > 0
			open = !final
			s.stream = append(s.stream, frame(from, opcode, final, noise(n))...)
		}
	}
	if cut := len(s.stream); cut > 0 && r.IntN(4) == 0 {
		s.stream = s.stream[:r.IntN(cut)]
	}
	for range 1 + r.IntN(4) {
		s.pieces = append(s.pieces, 1+r.IntN([]int{3, 100, 5000, 100_000, 1 << 20}[r.IntN(5)]))
	}
	s.pause = 1 + r.IntN(20)
	return s
}

func (s script) play(c *net.TCPConn) {
	rest := s.stream
	for i := 0; len(rest) > 0; i++ {
		n := min(s.pieces[i%len(s.pieces)], len(rest))
		if i > 2000 {
			n = len(rest) // enough of small pieces
		}
		if _, err := c.Write(rest[:n]); err != nil {
			return
		}
		rest = rest[n:]
		if i%s.pause == 0 {
			runtime.Gosched()
		}
	}
	c.CloseWrite()
}

// heard is what comes out of a connection.
func heard(c *net.TCPConn) ([]byte, error) {
	c.SetReadDeadline(time.Now().Add(wait))
	return io.ReadAll(c)
}

// differential plays two scripts over a tunnel and wants each peer to hear what it would over a direct connection:
// all of it, and then the end.
func differential(t *testing.T, e *splice.Engine, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 3))
	scripts := [2]script{newScript(r, splice.Client), newScript(r, splice.Upstream)}
	early := [2]int{r.IntN(min(len(scripts[0].stream), 5000) + 1), r.IntN(min(len(scripts[1].stream), 5000) + 1)}
	tun := open(t, e, splice.Config{
		FromClient:   scripts[0].stream[:early[0]],
		FromUpstream: scripts[1].stream[:early[1]],
	})
	var wg sync.WaitGroup
	var got [2][]byte
	var errs [2]error
	for side, c := range []*net.TCPConn{tun.client, tun.upstream} {
		s := scripts[side]
		s.stream = s.stream[early[side]:]
		wg.Go(func() { s.play(c) })
		wg.Go(func() { got[1-side], errs[1-side] = heard(c) })
	}
	wg.Wait()
	end := tun.end()
	for side := range got {
		want := scripts[side].stream
		if errs[side] != nil || !bytes.Equal(got[side], want) {
			t.Errorf("seed %d, from the %v: heard %d bytes, %v; want %d; they differ at %d",
				seed, splice.Side(side), len(got[side]), errs[side], len(want), differ(got[side], want))
		}
		if n := end.From[side].Bytes; n != int64(len(want)) {
			t.Errorf("seed %d, from the %v: counted %d bytes; want %d", seed, splice.Side(side), n, len(want))
		}
	}
	if end.How != splice.FIN && end.How != splice.CloseFrame {
		t.Errorf("seed %d: ended by %+v", seed, end.Cause)
	}
}

func TestDifferential(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		for seed := range uint64(150) {
			differential(t, e, seed)
		}
	})
}

// FuzzDifferential looks for a stream, segmentation and pauses that the engine carries differently from a wire.
func FuzzDifferential(f *testing.F) {
	for seed := range uint64(4) { // 3 on the portable pump was an end once that was taken for a reset
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, seed uint64, portable bool) {
		differential(t, &splice.Engine{Portable: portable}, seed)
	})
}
