package splice_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

func TestBytesBothWays(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		up, down := message(splice.Client, noise(3<<20)), message(splice.Upstream, noise(2<<20))
		go tun.client.Write(up)
		go tun.upstream.Write(down)
		done := make(chan struct{})
		go func() {
			defer close(done)
			expect(t, tun.upstream, up)
		}()
		expect(t, tun.client, down)
		<-done
		tun.client.CloseWrite()
		expectEOF(t, tun.upstream)
		tun.upstream.Close()
		expectEOF(t, tun.client)
		end := tun.end()
		if end.By != splice.Client || end.How != splice.FIN || end.Why != "" {
			t.Errorf("got cause %+v; want the client's FIN", end.Cause)
		}
		for side, want := range [2]int{len(up), len(down)} {
			if f := end.From[side]; f.Bytes != int64(want) || f.Messages != 1 || f.LastData.IsZero() || f.LastActive.IsZero() {
				t.Errorf("got %+v from %v; want %d bytes", f, splice.Side(side), want)
			}
		}
	})
}

func TestEarlyBytes(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		up, down := message(splice.Client, []byte("first")), message(splice.Upstream, noise(100<<10))
		early := bytes.Clone(up)
		tun := open(t, e, splice.Config{FromClient: early, FromUpstream: down[:4000]})
		clear(early) // the engine has its own copy
		write(t, tun.client, message(splice.Client, []byte("second")))
		go tun.upstream.Write(down[4000:])
		expect(t, tun.upstream, append(up, message(splice.Client, []byte("second"))...))
		expect(t, tun.client, down)
		until(t, "three messages", func() bool {
			s := tun.pair.Stats()
			return s.From[splice.Client].Messages == 2 && s.From[splice.Upstream].Messages == 1
		})
	})
}

func TestHalfCloseThenTenMegabytes(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		for _, first := range []splice.Side{splice.Client, splice.Upstream} {
			tun := open(t, e, splice.Config{Opaque: true, LingerTimeout: 10 * time.Second})
			a, b := tun.client, tun.upstream
			if first == splice.Upstream {
				a, b = b, a
			}
			write(t, a, []byte("last words"))
			a.CloseWrite()
			expect(t, b, []byte("last words"))
			expectEOF(t, b)
			data := noise(10 << 20)
			go func() {
				b.Write(data)
				b.CloseWrite()
			}()
			expect(t, a, data)
			expectEOF(t, a)
			if end := tun.end(); end.By != first || end.How != splice.FIN {
				t.Errorf("got %+v; want FIN by the %v", end.Cause, first)
			}
		}
	})
}

func TestTimeouts(t *testing.T) {
	for _, test := range []struct {
		why    splice.Why
		config splice.Config
		by     splice.Side
		how    splice.How
	}{
		{splice.WhyIdle, splice.Config{IdleTimeout: 150 * time.Millisecond}, splice.Gateway, splice.Timeout},
		{splice.WhyLife, splice.Config{LifeTimeout: 150 * time.Millisecond, IdleTimeout: time.Hour}, splice.Gateway, splice.Timeout},
		{splice.WhyLinger, splice.Config{LingerTimeout: 150 * time.Millisecond}, splice.Upstream, splice.FIN},
	} {
		t.Run(string(test.why), func(t *testing.T) {
			onPumps(t, func(t *testing.T, e *splice.Engine) {
				tun := open(t, e, test.config)
				begin := time.Now()
				if test.why == splice.WhyLinger {
					tun.upstream.CloseWrite()
				}
				if test.why == splice.WhyLinger {
					expectEOF(t, tun.upstream)
				} else { // "idle timeout", "life timeout"
					expect(t, tun.client, []byte{0x88, 14, 1001 >> 8, 1001 & 0xff, test.why[0]})
				}
				if took := time.Since(begin); took < 140*time.Millisecond || took > 2*time.Second {
					t.Errorf("took %v", took)
				}
				tun.client.Close()
				tun.upstream.Close()
				if end := tun.end(); end.By != test.by || end.How != test.how || end.Why != test.why {
					t.Errorf("got %+v", end.Cause)
				}
			})
		})
	}
}

func TestIdleTimeoutIsRearmedByAnyByteAndCanBeChanged(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{IdleTimeout: 400 * time.Millisecond})
		for range 8 { // pings, for 800 ms
			write(t, tun.client, frame(splice.Client, 9, true, nil))
			expect(t, tun.upstream, frame(splice.Client, 9, true, nil))
			time.Sleep(100 * time.Millisecond)
		}
		if s := tun.pair.Stats(); !s.From[splice.Client].LastActive.IsZero() || s.From[splice.Client].LastData.IsZero() {
			t.Errorf("pings: got %+v; want data and no activity", s.From[splice.Client])
		}
		tun.pair.SetIdleTimeout(time.Hour)
		select {
		case end := <-tun.ended:
			t.Fatalf("ended: %+v", end.Cause)
		case <-time.After(600 * time.Millisecond):
		}
		tun.pair.SetIdleTimeout(time.Millisecond)
		tun.client.Close()
		tun.upstream.Close()
		if end := tun.end(); end.How != splice.Timeout && end.How != splice.FIN {
			t.Errorf("got %+v", end.Cause)
		}
	})
}

func TestStallTimeout(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{StallTimeout: 300 * time.Millisecond})
		tun.client.SetReadBuffer(4096)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			for {
				if _, err := tun.upstream.Write(noise(1 << 20)); err != nil {
					return
				}
			}
		}()
		until(t, "stalled", func() bool {
			return tun.pair.Stats().From[splice.Upstream].Bytes > 100<<10
		})
		end := tun.end()
		if end.By != splice.Gateway || end.How != splice.Timeout || end.Why != splice.WhyStall {
			t.Errorf("got %+v", end.Cause)
		}
		tun.upstream.Close()
		<-stop
	})
}

func TestResetIsPassedOn(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		for _, by := range []splice.Side{splice.Client, splice.Upstream} {
			tun := open(t, e, splice.Config{})
			a, b := tun.client, tun.upstream
			if by == splice.Upstream {
				a, b = b, a
			}
			data := message(by, noise(20<<10))
			write(t, a, data)
			until(t, "forwarded", func() bool { return tun.pair.Stats().From[by].Bytes == int64(len(data)) })
			reset(a)
			if got := expectReset(t, b); !bytes.Equal(got, data) {
				t.Errorf("got %d bytes before the reset; want %d", len(got), len(data))
			}
			if end := tun.end(); end.By != by || end.How != splice.RST || end.Errno != syscall.ECONNRESET {
				t.Errorf("got %+v; want the %v's reset", end.Cause, by)
			}
		}
	})
}

// A peer that has sent FIN and then answers data with RST has ended the tunnel, not the one that sent the data.
func TestFINThenRST(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		tun.client.Close() // FIN; whatever comes for it meets RST
		expectEOF(t, tun.upstream)
		for {
			if _, err := tun.upstream.Write(message(splice.Upstream, noise(1000))); err != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if end := tun.end(); end.By != splice.Client || end.How != splice.RST {
			t.Errorf("got %+v; want the client's RST", end.Cause)
		}
	})
}

func TestCloseOnPurpose(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		write(t, tun.client, message(splice.Client, []byte("hello")))
		expect(t, tun.upstream, message(splice.Client, []byte("hello")))
		if !tun.pair.Close("route deleted", 1001, "bye") {
			t.Error("Close was not the first cause")
		}
		if tun.pair.Close("shutdown", 1012, "bye") {
			t.Error("a second Close was the first cause")
		}
		expect(t, tun.client, []byte{0x88, 5, 1001 >> 8, 1001 & 0xff, 'b', 'y', 'e'})
		header := make([]byte, 11)
		if _, err := io.ReadFull(tun.upstream, header); err != nil || header[0] != 0x88 || header[1] != 0x85 {
			t.Fatalf("upstream got %x, %v; want a masked Close frame", header, err)
		}
		write(t, tun.client, frame(splice.Client, 8, true, []byte{1001 >> 8, 1001 & 0xff}))
		write(t, tun.upstream, frame(splice.Upstream, 8, true, []byte{1001 >> 8, 1001 & 0xff, 'o', 'k'}))
		expectEOF(t, tun.client)
		expectEOF(t, tun.upstream)
		tun.client.Close()
		tun.upstream.Close()
		end := tun.end()
		if end.By != splice.Gateway || end.How != splice.Policy || end.Why != "route deleted" {
			t.Errorf("got %+v", end.Cause)
		}
		want := [2]splice.Seen{{true, 1001, ""}, {true, 1001, "ok"}}
		if end.Seen != want {
			t.Errorf("got %+v; want %+v", end.Seen, want)
		}
	})
}

// The order comes in the middle of a frame: its rest goes through first, and what follows it does not.
func TestCloseWaitsForBoundary(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		long := message(splice.Upstream, noise(100<<10))
		write(t, tun.upstream, long[:60<<10])
		expect(t, tun.client, long[:60<<10])
		tun.pair.Close("drain", 1012, "")
		write(t, tun.upstream, append(bytes.Clone(long[60<<10:]), message(splice.Upstream, []byte("too late"))...))
		expect(t, tun.client, append(bytes.Clone(long[60<<10:]), 0x88, 2, 1012>>8, 1012&0xff))
		write(t, tun.client, frame(splice.Client, 8, true, nil))
		expectEOF(t, tun.client)
		tun.upstream.Close()
		end := tun.end()
		if got := end.From[splice.Upstream].Bytes; got != int64(len(long)) {
			t.Errorf("counted %d bytes; want %d", got, len(long))
		}
		if end.Seen[splice.Client] != (splice.Seen{Frame: true, Code: 1005}) {
			t.Errorf("got %+v", end.Seen)
		}
	})
}

// A frame of 2^62 bytes has no end, a peer that is silent no answer: both get a FIN, and then a reset.
func TestCloseWithoutBoundaryOrAnswer(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		huge := []byte{0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 'x'}
		write(t, tun.upstream, huge)
		expect(t, tun.client, huge)
		begin := time.Now()
		tun.pair.Close("drain", 1012, "")
		expectEOF(t, tun.client)
		if took := time.Since(begin); took < 4900*time.Millisecond || took > 7*time.Second {
			t.Errorf("the FIN came after %v; want 5 s", took)
		}
		end := tun.end()
		if took := end.Closed.Sub(end.Opened); took < 6*time.Second || took > 9*time.Second {
			t.Errorf("the end came after %v; want about 7 s", took)
		}
		if end.By != splice.Gateway || end.Why != "drain" {
			t.Errorf("got %+v", end.Cause)
		}
	})
}

func TestCloseFrameIsTheCause(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		bye := frame(splice.Upstream, 8, true, append([]byte{4001 >> 8, 4001 & 0xff}, "so long"...))
		write(t, tun.upstream, bye)
		expect(t, tun.client, bye)
		answer := frame(splice.Client, 8, true, []byte{4001 >> 8, 4001 & 0xff})
		write(t, tun.client, answer)
		expect(t, tun.upstream, answer)
		tun.client.Close()
		expectEOF(t, tun.upstream)
		tun.upstream.Close()
		end := tun.end()
		if end.By != splice.Upstream || end.How != splice.CloseFrame {
			t.Errorf("got %+v; want the upstream's Close frame", end.Cause)
		}
		if want := (splice.Seen{Frame: true, Code: 4001, Reason: "so long"}); end.Seen[splice.Upstream] != want {
			t.Errorf("got %+v; want %+v", end.Seen[splice.Upstream], want)
		}
	})
}

func TestBareClose(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		tun.pair.Close("admin", 0, "")
		expectEOF(t, tun.client)
		expectEOF(t, tun.upstream)
		tun.client.Close()
		tun.upstream.Close()
		if end := tun.end(); end.How != splice.Policy || end.Why != "admin" {
			t.Errorf("got %+v", end.Cause)
		}
	})
}

// Whatever goes on, and however slow the peers are. A side that was told goodbye ends with it, the other with a reset.
func TestCut(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		tun.client.SetReadBuffer(128 << 10)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			tun.upstream.Write([]byte{0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0}) // no place for a Close frame
			for b := noise(1 << 20); ; {
				if _, err := tun.upstream.Write(b); err != nil {
					return
				}
			}
		}()
		until(t, "the client takes no more", func() bool {
			before := tun.pair.Stats().From[splice.Upstream].Bytes
			time.Sleep(20 * time.Millisecond)
			return before > 0 && tun.pair.Stats().From[splice.Upstream].Bytes == before
		})
		tun.pair.Close("drain", 1012, "")
		closeFrame := make([]byte, 8)
		if _, err := io.ReadFull(tun.upstream, closeFrame); err != nil || closeFrame[0] != 0x88 {
			t.Errorf("got %x, %v; want a Close frame", closeFrame, err)
		}
		begin := time.Now()
		tun.pair.Cut("shutdown")
		end := tun.end()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if end.By != splice.Gateway || end.How != splice.Policy || end.Why != "drain" {
			t.Errorf("got %+v; want the first cause", end.Cause)
		}
		expectReset(t, tun.client)
		<-stop
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	var e splice.Engine
	near, far := connect(t)
	client, clientSide := secure(t, near, far)
	upstream, upstreamSide := connect(t)
	tun := start(t, &e, splice.Config{Client: clientSide, Upstream: upstreamSide}, near, upstream)
	up, down := message(splice.Client, noise(1<<20)), message(splice.Upstream, noise(1<<20))
	go client.Write(up)
	go upstream.Write(down)
	expect(t, upstream, up)
	expect(t, client, down)
	client.CloseWrite()
	expectEOF(t, upstream)
	upstream.Close()
	expectEOF(t, client)
	if end := tun.end(); end.By != splice.Client || end.How != splice.FIN {
		t.Errorf("got %+v", end.Cause)
	}
}

// counted is a wrapper that may be looked through; opaque one that may not.
type counted struct {
	net.Conn
	closed chan struct{}
}

func (c counted) Transparent() net.Conn { return c.Conn }
func (c counted) Close() error          { close(c.closed); return c.Conn.Close() }

type opaque struct{ net.Conn }

func TestWrappedConnections(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		client, clientSide := connect(t)
		upstream, upstreamSide := connect(t)
		closed := make(chan struct{})
		tun := start(t, e, splice.Config{Client: counted{clientSide, closed}, Upstream: opaque{upstreamSide}}, client, upstream)
		write(t, client, message(splice.Client, []byte("hi")))
		expect(t, upstream, message(splice.Client, []byte("hi")))
		select {
		case <-closed:
			t.Error("the wrapper was closed early")
		default:
		}
		upstream.Close()
		expectEOF(t, client)
		client.Close()
		tun.end()
		<-closed
	})
}

func TestEngineStartsAgain(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		for range 20 {
			tun := open(t, e, splice.Config{})
			write(t, tun.client, message(splice.Client, []byte("hi")))
			expect(t, tun.upstream, message(splice.Client, []byte("hi")))
			tun.client.Close()
			tun.upstream.Close()
			tun.end()
			if n := e.Tunnels(); n != 0 {
				t.Errorf("%d tunnels after the end", n)
			}
		}
	})
}

func TestUnixSocket(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "upstream"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		upstreamSide, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		upstream, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer upstream.Close()
		client, clientSide := connect(t)
		ended := make(chan splice.End, 1)
		e.Start(splice.Config{Client: clientSide, Upstream: upstreamSide, Ended: func(end splice.End) { ended <- end }})
		up, down := message(splice.Client, noise(3<<20)), message(splice.Upstream, noise(3<<20))
		go client.Write(up)
		go upstream.Write(down)
		expect(t, upstream, up)
		expect(t, client, down)
		upstream.Close()
		expectEOF(t, client)
		client.Close()
		if end := <-ended; end.By != splice.Upstream || end.How != splice.FIN || end.From[splice.Client].Messages != 1 {
			t.Errorf("got %+v", end)
		}
	})
}

// What costs the fast path is told once.
func TestLogger(t *testing.T) {
	var log bytes.Buffer
	e := &splice.Engine{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	for range 3 {
		client, clientSide := connect(t)
		upstream, upstreamSide := connect(t)
		tun := start(t, e, splice.Config{Client: opaque{clientSide}, Upstream: upstreamSide}, client, upstream)
		client.Close()
		upstream.Close()
		tun.end()
	}
	if got := strings.Count(log.String(), "\n"); runtime.GOOS == "linux" && (got != 1 || !strings.Contains(log.String(), "is not a plain socket")) {
		t.Errorf("got %d lines: %s", got, &log)
	}
}

// The longest times there are do not run out at once.
func TestEndlessTimeouts(t *testing.T) {
	const endless = 1<<63 - 1
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{IdleTimeout: endless, StallTimeout: endless, LifeTimeout: endless, LingerTimeout: endless,
			PingEvery: endless, PongTimeout: endless})
		tun.pair.SetIdleTimeout(endless)
		tun.pair.SetPingEvery(endless)
		hello := message(splice.Client, []byte("hello"))
		write(t, tun.client, hello)
		expect(t, tun.upstream, hello)
		tun.client.CloseWrite()
		expectEOF(t, tun.upstream)
		time.Sleep(3 * splice.Tick) // in which the clocks are looked at
		write(t, tun.upstream, message(splice.Upstream, []byte("hello")))
		expect(t, tun.client, message(splice.Upstream, []byte("hello")))
	})
}
