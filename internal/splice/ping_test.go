package splice_test

import (
	"bytes"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

const pingSize = 10 // to a client: two bytes of header, eight of payload

// pinged reads a ping of the gateway's and returns the pong.
func pinged(t testing.TB, client net.Conn) (pong []byte) {
	t.Helper()
	client.SetReadDeadline(time.Now().Add(wait))
	defer client.SetReadDeadline(time.Time{})
	ping := make([]byte, pingSize)
	if _, err := io.ReadFull(client, ping); err != nil || ping[0] != 0x89 || ping[1] != pingSize-2 {
		t.Fatalf("got %x, %v; want a ping", ping, err)
	}
	return frame(splice.Client, 10, true, ping[2:])
}

// answered waits until the gateway has understood a pong: then it sends the next ping.
func answered(t testing.TB, client net.Conn, pong []byte) {
	t.Helper()
	write(t, client, pong)
	if next := pinged(t, client); !bytes.Equal(next, pong) {
		t.Errorf("the next ping wants %x; want %x", next, pong)
	}
}

// pinging is a tunnel whose client is sent a ping whenever it is silent for a moment.
var pinging = splice.Config{PingEvery: 100 * time.Millisecond, PongTimeout: wait}

func TestPingIsNoPartOfTheTunnel(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, pinging)
		pong := pinged(t, tun.client)
		for range 3 {
			answered(t, tun.client, pong)
		}
		if s := tun.pair.Stats(); s != (splice.Stats{}) {
			t.Errorf("got %+v; want nothing", s)
		}
		write(t, tun.client, slices.Concat(pong, message(splice.Client, []byte("hi")), pong))
		expect(t, tun.upstream, message(splice.Client, []byte("hi")))
		s := tun.pair.Stats().From[splice.Client]
		if s.Bytes != 8 || s.Messages != 1 || s.Opaque {
			t.Errorf("got %+v; want 8 bytes", s)
		}
		tun.client.CloseWrite()
		expectEOF(t, tun.upstream)
	})
}

// A client that answers pings is there, but its tunnel is as idle as without them.
func TestPongsDoNotPutIdleTimeoutOff(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		config := pinging
		config.IdleTimeout = 500 * time.Millisecond
		tun := open(t, e, config)
		go func() {
			pong := make([]byte, pingSize)
			for {
				if _, err := io.ReadFull(tun.client, pong); err != nil || pong[0] != 0x89 {
					tun.client.Close()
					tun.upstream.Close()
					return
				}
				tun.client.Write(frame(splice.Client, 10, true, pong[2:]))
			}
		}()
		if end := tun.end(); end.By != splice.Gateway || end.How != splice.Timeout || end.Why != splice.WhyIdle {
			t.Errorf("got %+v; want idle", end.Cause)
		}
	})
}

func TestMissingPong(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{PingEvery: 150 * time.Millisecond})
		pinged(t, tun.client)
		reason := append([]byte{1001 >> 8, 1001 & 0xff}, "ping timeout"...)
		expect(t, tun.client, frame(splice.Upstream, 8, true, reason))
		tun.client.Close()
		tun.upstream.Close()
		end := tun.end()
		if end.By != splice.Gateway || end.How != splice.Timeout || end.Why != splice.WhyPing {
			t.Errorf("got %+v; want a ping timeout", end.Cause)
		}
		if took := end.Closed.Sub(end.Opened); took < 300*time.Millisecond || took > 5*time.Second {
			t.Errorf("took %v; want 0.3 s", took)
		}
	})
}

// What the peers have to say to each other passes, whatever it looks like, and in whatever pieces it comes.
func TestPongsOfPeersPass(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, pinging)
		pong := pinged(t, tun.client)
		answered(t, tun.client, pong)
		foreign := bytes.Clone(pong)
		foreign[len(foreign)-1] ^= 1
		fragments := func(between []byte) []byte {
			return slices.Concat(frame(splice.Client, 1, false, noise(70)), between, frame(splice.Client, 0, true, noise(5)))
		}
		for i, test := range []struct{ sent, heard []byte }{
			{foreign, foreign},
			{frame(splice.Client, 10, true, nil), frame(splice.Client, 10, true, nil)},
			{frame(splice.Client, 10, true, noise(125)), frame(splice.Client, 10, true, noise(125))},
			{frame(splice.Client, 9, true, noise(8)), frame(splice.Client, 9, true, noise(8))},
			{fragments(pong), fragments(nil)},
			{fragments(slices.Concat(pong, pong, foreign, pong)), fragments(foreign)},
			{slices.Concat(message(splice.Client, pong)[:6], pong), slices.Concat(message(splice.Client, pong)[:6], pong)}, // masked, it looks like one
		} {
			tail := message(splice.Client, []byte{byte(i)})
			for _, piece := range []int{1, 5, 6, 13, 14, 1000} {
				for p := range slices.Chunk(slices.Concat(test.sent, tail), piece) {
					write(t, tun.client, p)
					time.Sleep(100 * time.Microsecond) // mostly one read each
				}
				expect(t, tun.upstream, slices.Concat(test.heard, tail))
			}
		}
		write(t, tun.client, pong[:9])
		tun.client.CloseWrite()
		expect(t, tun.upstream, pong[:9]) // what was set aside of it, since it is no pong
		expectEOF(t, tun.upstream)
	})
}

// A ping has no place in a frame. When that comes to its end, it has.
func TestPingWaitsForBoundary(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{PingEvery: 50 * time.Millisecond})
		long := message(splice.Upstream, noise(100<<10))
		write(t, tun.upstream, long[:60<<10])
		expect(t, tun.client, long[:60<<10])
		select {
		case end := <-tun.ended:
			t.Fatalf("ended by %+v; want no pong missed that was not asked for", end.Cause)
		case <-time.After(400 * time.Millisecond):
		}
		write(t, tun.upstream, long[60<<10:])
		expect(t, tun.client, long[60<<10:])
		pinged(t, tun.client)
	})
}

// A client that is in the midst of a long frame cannot answer, and is there.
func TestAnyByteIsAnAnswer(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{PingEvery: 30 * time.Millisecond, PongTimeout: 1500 * time.Millisecond})
		long := message(splice.Client, noise(60))
		for i := range long {
			write(t, tun.client, long[i:i+1])
			time.Sleep(50 * time.Millisecond) // 3 s in all
		}
		expect(t, tun.upstream, long)
		pinged(t, tun.client)
	})
}

// A client that answers only the last of several pings must not be made to forget the upstream's.
func TestUpstreamsPingStandsForOurs(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{PingEvery: 300 * time.Millisecond, PongTimeout: 600 * time.Millisecond})
		ping := frame(splice.Upstream, 9, true, []byte("theirs"))
		write(t, tun.upstream, ping)
		expect(t, tun.client, ping)
		b := make([]byte, 1)
		tun.client.SetReadDeadline(time.Now().Add(wait))
		if _, err := io.ReadFull(tun.client, b); err != nil || b[0] != 0x88 {
			t.Errorf("got %x, %v; want a Close frame and no ping before it", b, err)
		}
		tun.client.Close()
		tun.upstream.Close()
		if end := tun.end(); end.Why != splice.WhyPing {
			t.Errorf("got %+v; want a ping timeout", end.Cause)
		}
	})
}

func TestNoPings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(tun *tunnel) (heard []byte){
		"opaque": func(tun *tunnel) []byte { return nil },
		"turned off": func(tun *tunnel) []byte {
			tun.pair.SetPingEvery(0)
			return nil
		},
		"the client broke the protocol": func(tun *tunnel) []byte {
			tun.client.Write(noise(100))
			expect(tun.t, tun.upstream, noise(100))
			return nil
		},
		"the upstream said goodbye": func(tun *tunnel) []byte {
			bye := frame(splice.Upstream, 8, true, nil)
			tun.upstream.Write(bye)
			return bye
		},
		"the client has ended": func(tun *tunnel) []byte {
			tun.client.CloseWrite()
			expectEOF(tun.t, tun.upstream)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onPumps(t, func(t *testing.T, e *splice.Engine) {
				tun := open(t, e, splice.Config{PingEvery: 500 * time.Millisecond, Opaque: name == "opaque"})
				heard := test(tun)
				tun.client.SetReadDeadline(time.Now().Add(1200 * time.Millisecond))
				got, _ := io.ReadAll(tun.client) // nothing more, for as long
				if !bytes.Equal(got, heard) {
					t.Errorf("got %x; want %x", got, heard)
				}
			})
		})
	}
}

// A ping that waited behind what a client did not take has only begun to be answered when it does.
func TestStalledClientHasTimeToAnswer(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		data := slices.Concat(message(splice.Upstream, noise(12<<20)), frame(splice.Upstream, 9, true, []byte("theirs")))
		tun := open(t, e, splice.Config{PingEvery: 600 * time.Millisecond, StallTimeout: wait})
		tun.client.SetReadBuffer(128 << 10)
		go tun.upstream.Write(data)
		until(t, "stalled", func() bool {
			before := tun.pair.Stats().From[splice.Upstream].Bytes
			time.Sleep(20 * time.Millisecond)
			return before > 0 && tun.pair.Stats().From[splice.Upstream].Bytes == before
		})
		time.Sleep(1500 * time.Millisecond) // two pings' time
		expect(t, tun.client, data)
		time.Sleep(100 * time.Millisecond)
		write(t, tun.client, frame(splice.Client, 10, true, []byte("theirs")))
		expect(t, tun.upstream, frame(splice.Client, 10, true, []byte("theirs")))
		pinged(t, tun.client)
	})
}

// A client that has stopped for good, with bytes on their way to it, is a stall.
func TestStoppedClientIsAMissingPong(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{PingEvery: 100 * time.Millisecond, StallTimeout: time.Second})
		tun.client.SetReadBuffer(8 << 10)
		write(t, tun.upstream, message(splice.Upstream, noise(200<<10)))
		expect(t, tun.upstream, []byte{0x88}) // the other side is told
		reset(tun.client)
		tun.upstream.Close()
		end := tun.end()
		if end.By != splice.Gateway || end.How != splice.Timeout || end.Why != splice.WhyPing && end.Why != splice.WhyStall {
			t.Errorf("got %+v; want a ping timeout", end.Cause)
		}
	})
}

func TestPingEveryCanBeChanged(t *testing.T) {
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		write(t, tun.client, message(splice.Client, []byte("hi")))
		expect(t, tun.upstream, message(splice.Client, []byte("hi")))
		tun.pair.SetPingEvery(300 * time.Millisecond)
		answered(t, tun.client, pinged(t, tun.client))
		tun.pair.SetPingEvery(0)
		select {
		case end := <-tun.ended:
			t.Errorf("ended by %+v", end.Cause)
		case <-time.After(time.Second):
		}
	})
}

// A ping can lie behind much that a slow client has yet to read.
func TestSlowClientIsNoMissingPong(t *testing.T) {
	if !hasTCPInfo {
		t.Skip("here the kernel does not tell")
	}
	t.Parallel()
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{PingEvery: 500 * time.Millisecond, StallTimeout: wait})
		tun.client.SetReadBuffer(128 << 10)
		data := message(splice.Upstream, noise(2<<20))
		write(t, tun.upstream, data) // all of it is in the kernel soon
		for part := range slices.Chunk(data, 64<<10) {
			expect(t, tun.client, part)
			time.Sleep(50 * time.Millisecond) // 1.6 s in all
		}
		answered(t, tun.client, pinged(t, tun.client))
	})
}
