package splice_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// TestFrameShapes sends streams of both directions in small and in large pieces.
func TestFrameShapes(t *testing.T) {
	long := func(from splice.Side, length uint64, payload []byte) []byte { // a 64-bit length, whatever it is
		b := frame(from, 2, true, nil)
		b[1] |= 127
		return slices.Concat(b[:2], binary.BigEndian.AppendUint64(nil, length), b[2:], payload)
	}
	type shape struct {
		name     string
		stream   func(from splice.Side) []byte
		messages int64
		opaque   bool
	}
	shapes := []shape{
		{"7-bit length", func(from splice.Side) []byte { return message(from, noise(125)) }, 1, false},
		{"16-bit length", func(from splice.Side) []byte { return message(from, noise(126)) }, 1, false},
		{"64-bit length", func(from splice.Side) []byte { return message(from, noise(1<<16)) }, 1, false},
		{"64-bit length of little", func(from splice.Side) []byte { return long(from, 3, noise(3)) }, 1, false},
		{"64-bit length with the top bit", func(from splice.Side) []byte { return long(from, 1<<63, noise(3)) }, 0, true},
		{"2^62 bytes", func(from splice.Side) []byte { return long(from, 1<<62, noise(100<<10)) }, 0, false},
		{"wrong masking", func(from splice.Side) []byte { return message(1-from, noise(5)) }, 0, true},
		{"control frame of 126 bytes", func(from splice.Side) []byte { return frame(from, 9, true, noise(126)) }, 0, true},
		{"fragmented control frame", func(from splice.Side) []byte { return frame(from, 9, false, noise(5)) }, 0, true},
		{"violation after a message", func(from splice.Side) []byte {
			return slices.Concat(message(from, noise(9)), frame(from, 3, true, noise(9)), message(from, noise(9)))
		}, 1, true},
		{"ping inside fragments", func(from splice.Side) []byte {
			return slices.Concat(frame(from, 1, false, noise(70)), frame(from, 9, true, noise(5)),
				frame(from, 0, false, noise(300)), frame(from, 10, true, nil), frame(from, 0, true, noise(7)))
		}, 1, false},
		{"no bytes", func(from splice.Side) []byte {
			return slices.Concat(message(from, nil), frame(from, 9, true, nil), message(from, nil))
		}, 2, false},
	}
	for _, extra := range []int{-1, 0, 1} {
		for _, edge := range []int{32 << 10, 64 << 10} {
			shapes = append(shapes, shape{fmt.Sprintf("%d%+d", edge, extra), func(from splice.Side) []byte {
				return slices.Concat(message(from, noise(edge+extra)), message(from, noise(edge+extra)), message(from, noise(3)))
			}, 3, false})
		}
	}
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		for _, shape := range shapes {
			for _, from := range []splice.Side{splice.Client, splice.Upstream} {
				for _, piece := range []int{1, 4096, 1 << 20} {
					stream := shape.stream(from)
					if piece == 1 && len(stream) > 1000 {
						continue
					}
					tun := open(t, e, splice.Config{})
					a, b := tun.client, tun.upstream
					if from == splice.Upstream {
						a, b = b, a
					}
					go func() {
						for p := range slices.Chunk(stream, piece) {
							a.Write(p)
						}
						a.CloseWrite()
					}()
					expect(t, b, stream)
					expectEOF(t, b)
					flow := tun.pair.Stats().From[from]
					if flow.Messages != shape.messages || flow.Opaque != shape.opaque || flow.Bytes != int64(len(stream)) {
						t.Errorf("%s from the %v by %d: got %+v; want %d messages, opaque %v", shape.name, from, piece, flow, shape.messages, shape.opaque)
					}
					tun.client.Close()
					tun.upstream.Close()
					tun.end()
				}
			}
		}
	})
}

func TestActivitySize(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{ActivitySize: 14})
		write(t, tun.client, message(splice.Client, noise(13)))
		expect(t, tun.upstream, message(splice.Client, noise(13)))
		if f := tun.pair.Stats().From[splice.Client]; !f.LastActive.IsZero() || f.Messages != 1 {
			t.Errorf("13 bytes: got %+v; want no activity", f)
		}
		write(t, tun.client, slices.Concat(frame(splice.Client, 1, false, noise(13)), frame(splice.Client, 0, true, noise(1))))
		expect(t, tun.upstream, slices.Concat(frame(splice.Client, 1, false, noise(13)), frame(splice.Client, 0, true, noise(1))))
		if f := tun.pair.Stats().From[splice.Client]; f.LastActive.IsZero() || f.Messages != 2 {
			t.Errorf("14 bytes in two frames: got %+v; want activity", f)
		}
	})
}

func TestSlowReader(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		for _, size := range []int{1000, 3 << 20} {
			tun := open(t, e, splice.Config{StallTimeout: time.Minute})
			tun.client.SetReadBuffer(128 << 10)
			var stream []byte
			for len(stream) < 12<<20 {
				stream = append(stream, message(splice.Upstream, noise(size))...)
			}
			go func() {
				tun.upstream.Write(stream)
				tun.upstream.CloseWrite()
			}()
			until(t, "the gateway takes no more", func() bool {
				before := tun.pair.Stats().From[splice.Upstream].Bytes
				time.Sleep(20 * time.Millisecond)
				return before > 0 && tun.pair.Stats().From[splice.Upstream].Bytes == before
			})
			var got []byte
			b := make([]byte, 100<<10)
			for {
				n, err := tun.client.Read(b)
				got = append(got, b[:n]...)
				if err != nil {
					break
				}
				if len(got)%7 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			if !bytes.Equal(got, stream) {
				t.Errorf("got %d of %d bytes; they differ at %d", len(got), len(stream), differ(got, stream))
			}
			if n := tun.pair.Stats().From[splice.Upstream].Messages; n != int64((len(stream)+size)/(size+4)) && n < 2 {
				t.Errorf("%d messages", n)
			}
		}
	})
}

// One-byte segments fill a pipe's slots long before its bytes.
func TestPipeSlotsFullOfOneByteSegments(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		tun.client.SetReadBuffer(128 << 10)
		stream := message(splice.Upstream, noise(12<<20))
		go func() {
			tun.upstream.Write(stream[:len(stream)-100<<10])
			for i := len(stream) - 100<<10; i < len(stream); i++ {
				if i%16 != 0 {
					tun.upstream.Write(stream[i : i+1])
				} else {
					tun.upstream.Write(stream[i : i+1])
					runtime.Gosched()
				}
			}
			tun.upstream.CloseWrite()
		}()
		until(t, "the pipe is in use", func() bool { return tun.pair.Stats().From[splice.Upstream].Bytes > 100<<10 })
		expect(t, tun.client, stream)
		expectEOF(t, tun.client)
	})
}

func TestResetWithDataPendingBothWays(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		var wg sync.WaitGroup
		var errs [2]error // a reset shows once: to who writes, or to who reads
		stream := make([][]byte, 2)
		for side, c := range []*net.TCPConn{tun.client, tun.upstream} {
			c.SetReadBuffer(128 << 10)
			stream[side] = message(splice.Side(side), noise(16<<20))
			wg.Go(func() {
				c.SetWriteDeadline(time.Now().Add(wait))
				_, errs[side] = c.Write(stream[side])
			})
		}
		until(t, "both stalled", func() bool {
			before := tun.pair.Stats()
			time.Sleep(20 * time.Millisecond)
			after := tun.pair.Stats()
			return before.From[0].Bytes > 0 && before.From[1].Bytes > 0 &&
				before.From[0].Bytes == after.From[0].Bytes && before.From[1].Bytes == after.From[1].Bytes
		})
		reset(tun.upstream)
		tun.client.SetReadDeadline(time.Now().Add(wait))
		got, err := io.ReadAll(tun.client)
		wg.Wait()
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(errs[splice.Client], syscall.ECONNRESET) {
			t.Errorf("read: %v, write: %v; want a reset", err, errs[splice.Client])
		}
		if !bytes.HasPrefix(stream[splice.Upstream], got) || len(got) == 0 {
			t.Errorf("got %d bytes that are no beginning of what was sent", len(got))
		}
		if end := tun.end(); end.By != splice.Upstream || end.How != splice.RST {
			t.Errorf("got %+v; want the upstream's reset", end.Cause)
		}
	})
}

// The gateway learns of the reset by writing: the upstream never pauses, the client never sends.
func TestWriteErrorFirst(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		for range 20 {
			tun := open(t, e, splice.Config{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				msg := message(splice.Upstream, noise(1000))
				for {
					if _, err := tun.upstream.Write(msg); err != nil {
						return
					}
				}
			}()
			io.CopyN(io.Discard, tun.client, 50<<10)
			reset(tun.client)
			end := tun.end()
			if end.By != splice.Client || end.How != splice.RST || end.Errno != syscall.ECONNRESET && end.Errno != syscall.EPIPE {
				t.Errorf("got %+v; want the client's reset", end.Cause)
			}
			<-done
		}
	})
}

// Descriptors are given out again at once. No byte may come out of another tunnel.
func TestDescriptorReuseStorm(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		keeper := open(t, e, splice.Config{}) // so that the engine is one all the time
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(worker), 1))
				for i := range 150 {
					tag := fmt.Appendf(nil, "%04d-%04d|", worker, i)
					client, clientSide := connect(t)
					upstream, upstreamSide := connect(t)
					ended := make(chan splice.End, 1)
					e.Start(splice.Config{Client: clientSide, Upstream: upstreamSide, Opaque: true,
						FromClient: tag, FromUpstream: tag, Ended: func(end splice.End) { ended <- end }})
					data := bytes.Repeat(tag, 1+r.IntN(500))
					go client.Write(data)
					go upstream.Write(data)
					expect(t, upstream, slices.Concat(tag, data)[:len(tag)+r.IntN(len(data))])
					expect(t, client, slices.Concat(tag, data)[:len(tag)+r.IntN(len(data))])
					switch r.IntN(3) {
					case 0:
						reset(client)
						upstream.Close()
					case 1:
						upstream.Close()
						client.Close()
					case 2:
						reset(upstream)
						reset(client)
					}
					select {
					case <-ended:
					case <-time.After(wait):
						t.Error("tunnel did not end")
						return
					}
				}
			})
		}
		wg.Wait()
		write(t, keeper.client, message(splice.Client, []byte("still here")))
		expect(t, keeper.upstream, message(splice.Client, []byte("still here")))
	})
}

// What a parked tunnel consists of is not garbage.
func TestGarbageCollectionWhileParked(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		var tunnels []*tunnel
		for range 20 {
			tunnels = append(tunnels, open(t, e, splice.Config{}))
		}
		for range 30 {
			runtime.GC()
			for i, tun := range tunnels {
				msg := message(splice.Client, noise(100+i))
				write(t, tun.client, msg)
				expect(t, tun.upstream, msg)
			}
		}
	})
}

// Data, or the end, comes at the very moment a tunnel falls quiet.
func TestParkingRaces(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		const workers, rounds = 8, 1250
		var wg sync.WaitGroup
		for worker := range workers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(worker), 2))
				var tun *tunnel
				msg := message(splice.Client, noise(50))
				for i := range rounds {
					if tun == nil {
						tun = open(t, e, splice.Config{})
					}
					write(t, tun.client, msg)
					if r.IntN(2) == 0 {
						expect(t, tun.upstream, msg)
						for range r.IntN(300) { // some microseconds
							runtime.Gosched()
						}
						write(t, tun.client, msg)
					} else {
						expect(t, tun.upstream, msg)
						write(t, tun.upstream, message(splice.Upstream, msg))
						write(t, tun.client, msg)
						expect(t, tun.client, message(splice.Upstream, msg))
					}
					expect(t, tun.upstream, msg)
					if i%25 == 24 {
						write(t, tun.client, msg)
						tun.client.Close()
						expect(t, tun.upstream, msg)
						expectEOF(t, tun.upstream)
						tun.upstream.Close()
						if end := tun.end(); end.By != splice.Client || end.How != splice.FIN {
							t.Errorf("got %+v", end.Cause)
						}
						tun = nil
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestCloseAgainstPeers(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		for i := range 200 {
			tun := open(t, e, splice.Config{})
			var wg sync.WaitGroup
			wg.Go(func() { tun.pair.Close("admin", uint16(i%2)*1001, "") })
			wg.Go(func() { tun.client.Close() })
			wg.Go(func() { tun.upstream.Close() })
			wg.Wait()
			if end := tun.end(); end.By == splice.Gateway && (end.How != splice.Policy || end.Why != "admin") || end.By != splice.Gateway && end.Why != "" {
				t.Errorf("got %+v", end.Cause)
			}
		}
	})
}

// With one processor a busy loop must not keep it.
func TestOneProcessor(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		stream := message(splice.Upstream, noise(30<<20))
		go tun.upstream.Write(stream)
		other := open(t, e, splice.Config{})
		for range 100 {
			write(t, other.client, message(splice.Client, []byte("ping")))
			expect(t, other.upstream, message(splice.Client, []byte("ping")))
		}
		expect(t, tun.client, stream)
	})
}
