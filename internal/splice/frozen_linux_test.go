package splice_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// move has another engine carry the tunnel on, as another process does: with descriptors of its own.
func (tun *tunnel) move(to *splice.Engine) {
	tun.t.Helper()
	frozen, err := tun.pair.Freeze()
	if err != nil {
		tun.t.Fatal(err)
	}
	client, err := unix.FcntlInt(uintptr(frozen.Client), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		tun.t.Fatal(err)
	}
	upstream, err := unix.FcntlInt(uintptr(frozen.Upstream), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		tun.t.Fatal(err)
	}
	pair, err := to.Import(frozen.Record, client, upstream, tun.finish)
	if err != nil {
		tun.t.Fatal(err)
	}
	frozen.Release()
	tun.pair = pair
}

// TestMovedUnderLoad moves a tunnel again and again while both sides send all kinds of frames in all sizes.
func TestMovedUnderLoad(t *testing.T) {
	for _, opaque := range []bool{false, true} {
		engines := []*splice.Engine{{}, {}, {}}
		tun := open(t, engines[0], splice.Config{Opaque: opaque, IdleTimeout: time.Minute, StallTimeout: time.Minute})
		r := rand.New(rand.NewPCG(1, 2))
		stream := func(from splice.Side) (b []byte, messages int64) {
			for len(b) < 24<<20 {
				switch r.IntN(6) {
				case 0:
					b = append(b, frame(from, 9, true, noise(r.IntN(126)))...)
				case 1:
					b = append(b, frame(from, 2, false, noise(r.IntN(200)))...)
					b = append(b, frame(from, 9, true, nil)...)
					b = append(b, frame(from, 0, true, noise(r.IntN(70<<10)))...)
					messages++
				case 2:
					b = append(b, message(from, noise(r.IntN(3<<20)))...)
					messages++
				default:
					b = append(b, message(from, noise(r.IntN(20<<10)))...)
					messages++
				}
			}
			if opaque {
				messages = 0
			}
			return b, messages
		}
		up, upMessages := stream(splice.Client)
		down, downMessages := stream(splice.Upstream)
		send := func(to io.Writer, b []byte, seed uint64) {
			r := rand.New(rand.NewPCG(seed, 4))
			for len(b) > 0 {
				n := min(len(b), 1+r.IntN(200<<10))
				to.Write(b[:n])
				b = b[n:]
			}
		}
		received := make(chan error, 2)
		receive := func(from io.Reader, want []byte) {
			got := make([]byte, len(want))
			n, err := io.ReadFull(from, got)
			if err == nil && !bytes.Equal(got, want) {
				n, err = differ(got, want), errors.New("other bytes")
			}
			if err != nil {
				t.Errorf("at %d of %d: %v", n, len(want), err)
			}
			received <- err
		}
		tun.client.SetReadBuffer(64 << 10)
		go send(tun.client, up, 1)
		go send(tun.upstream, down, 2)
		go receive(tun.upstream, up)
		go receive(tun.client, down)
		moves := 0
		for open := 2; open > 0; {
			select {
			case <-received:
				open--
			case <-time.After(wait):
				t.Fatalf("stands still after %d moves: %+v", moves, tun.pair.Stats())
			default:
				moves++
				tun.move(engines[moves%len(engines)])
			}
		}
		tun.client.CloseWrite()
		expectEOF(t, tun.upstream)
		tun.move(engines[0])
		tun.upstream.CloseWrite()
		expectEOF(t, tun.client)
		end := tun.end()
		if end.By != splice.Client || end.How != splice.FIN {
			t.Errorf("got %+v; want the client's FIN", end.Cause)
		}
		want := [2]splice.Flow{{Bytes: int64(len(up)), Messages: upMessages}, {Bytes: int64(len(down)), Messages: downMessages}}
		for side, flow := range end.From {
			if flow.Bytes != want[side].Bytes || flow.Messages != want[side].Messages || flow.Opaque != opaque {
				t.Errorf("from the %v: got %+v; want %+v", splice.Side(side), flow, want[side])
			}
		}
		if moves < 10 {
			t.Errorf("only %d moves", moves)
		}
	}
}

// TestMovedStates moves a tunnel in each state that it can be in.
func TestMovedStates(t *testing.T) {
	hello := message(splice.Upstream, []byte("hello"))
	for _, test := range []struct {
		name   string
		config splice.Config
		before func(t *testing.T, tun *tunnel)
		after  func(t *testing.T, tun *tunnel)
		end    splice.Cause
		moving bool // bytes may go by meanwhile
	}{
		{name: "in the midst of a header", before: func(t *testing.T, tun *tunnel) {
			write(t, tun.upstream, hello[:1])
			expect(t, tun.client, hello[:1])
		}, after: func(t *testing.T, tun *tunnel) {
			tun.pair.Close("test", 1001, "bye") // not before the frame has ended
			write(t, tun.upstream, hello[1:])
			expect(t, tun.client, hello[1:])
			expect(t, tun.client, []byte{0x88, 5, 1001 >> 8, 1001 & 0xff, 'b', 'y', 'e'})
		}, end: splice.Cause{By: splice.Gateway, How: splice.Policy, Why: "test"}},
		{name: "in the midst of a frame that is spliced", before: func(t *testing.T, tun *tunnel) {
			b := message(splice.Upstream, noise(1<<20))
			go tun.upstream.Write(b[:len(b)-1])
			expect(t, tun.client, b[:len(b)-1])
		}, after: func(t *testing.T, tun *tunnel) {
			b := message(splice.Upstream, noise(1<<20))
			write(t, tun.upstream, b[len(b)-1:])
			expect(t, tun.client, b[len(b)-1:])
			until(t, "one message", func() bool { return tun.pair.Stats().From[splice.Upstream].Messages == 1 })
			tun.client.Close()
		}, end: splice.Cause{By: splice.Client, How: splice.FIN}},
		{name: "its receiver takes nothing", before: func(t *testing.T, tun *tunnel) {
			tun.client.SetReadBuffer(128 << 10)
			go tun.upstream.Write(message(splice.Upstream, noise(20<<20)))
			until(t, "the gateway takes no more", func() bool {
				before := tun.pair.Stats().From[splice.Upstream].Bytes
				time.Sleep(20 * time.Millisecond)
				return before > 0 && tun.pair.Stats().From[splice.Upstream].Bytes == before
			})
		}, after: func(t *testing.T, tun *tunnel) {
			expect(t, tun.client, message(splice.Upstream, noise(20<<20)))
			tun.client.Close()
		}, end: splice.Cause{By: splice.Client, How: splice.FIN}, moving: true},
		{name: "it has stalled", config: splice.Config{StallTimeout: 400 * time.Millisecond}, before: func(t *testing.T, tun *tunnel) {
			tun.client.SetReadBuffer(128 << 10)
			go tun.upstream.Write(message(splice.Upstream, noise(20<<20)))
			until(t, "the gateway takes no more", func() bool {
				before := tun.pair.Stats().From[splice.Upstream].Bytes
				time.Sleep(20 * time.Millisecond)
				return before > 0 && tun.pair.Stats().From[splice.Upstream].Bytes == before
			})
		}, end: splice.Cause{By: splice.Gateway, How: splice.Timeout, Why: splice.WhyStall}, moving: true},
		{name: "one side has ended", before: func(t *testing.T, tun *tunnel) {
			tun.client.CloseWrite()
			expectEOF(t, tun.upstream)
		}, after: func(t *testing.T, tun *tunnel) {
			write(t, tun.upstream, hello)
			expect(t, tun.client, hello)
			tun.upstream.CloseWrite()
			expectEOF(t, tun.client)
		}, end: splice.Cause{By: splice.Client, How: splice.FIN}},
		{name: "one side has ended, and the linger runs", config: splice.Config{LingerTimeout: 300 * time.Millisecond},
			before: func(t *testing.T, tun *tunnel) {
				tun.upstream.CloseWrite()
				expectEOF(t, tun.client)
			}, after: func(t *testing.T, tun *tunnel) { expectEOF(t, tun.upstream) },
			end: splice.Cause{By: splice.Upstream, How: splice.FIN, Why: splice.WhyLinger}},
		{name: "a Close frame has been sent", before: func(t *testing.T, tun *tunnel) {
			tun.pair.Close("test", 1012, "")
			expect(t, tun.client, []byte{0x88, 2, 1012 >> 8, 1012 & 0xff})
		}, after: func(t *testing.T, tun *tunnel) {
			write(t, tun.client, frame(splice.Client, 8, true, []byte{1012 >> 8, 1012 & 0xff}))
			write(t, tun.upstream, frame(splice.Upstream, 8, true, []byte{1012 >> 8, 1012 & 0xff}))
			expectEOF(t, tun.client)
		}, end: splice.Cause{By: splice.Gateway, How: splice.Policy, Why: "test"}},
		{name: "a Close frame has come in part", before: func(t *testing.T, tun *tunnel) {
			write(t, tun.client, frame(splice.Client, 8, true, []byte{1001 >> 8, 1001 & 0xff, 'x'})[:8])
			until(t, "it is seen", func() bool { return tun.pair.Stats().From[splice.Client].Bytes == 8 })
		}, after: func(t *testing.T, tun *tunnel) {
			write(t, tun.client, frame(splice.Client, 8, true, []byte{1001 >> 8, 1001 & 0xff, 'x'})[8:])
			expect(t, tun.upstream, frame(splice.Client, 8, true, []byte{1001 >> 8, 1001 & 0xff, 'x'}))
			tun.client.Close()
		}, end: splice.Cause{By: splice.Client, How: splice.CloseFrame}},
		{name: "a ping is not answered", config: splice.Config{PingEvery: 100 * time.Millisecond, PongTimeout: 300 * time.Millisecond},
			before: func(t *testing.T, tun *tunnel) {
				until(t, "a ping", func() bool { return tun.pair.PingPayload() != nil })
			}, end: splice.Cause{By: splice.Gateway, How: splice.Timeout, Why: splice.WhyPing}},
		{name: "it is idle", config: splice.Config{IdleTimeout: 300 * time.Millisecond},
			end: splice.Cause{By: splice.Gateway, How: splice.Timeout, Why: splice.WhyIdle}},
		{name: "it lives", config: splice.Config{LifeTimeout: 300 * time.Millisecond},
			end: splice.Cause{By: splice.Gateway, How: splice.Timeout, Why: splice.WhyLife}},
		{name: "it is opaque", config: splice.Config{Opaque: true}, before: func(t *testing.T, tun *tunnel) {
			write(t, tun.client, []byte("SSH-2.0"))
			expect(t, tun.upstream, []byte("SSH-2.0"))
		}, after: func(t *testing.T, tun *tunnel) {
			if f := tun.pair.Stats().From[splice.Client]; !f.Opaque || f.Bytes != 7 {
				t.Errorf("got %+v; want 7 opaque bytes", f)
			}
			reset(tun.upstream)
		}, end: splice.Cause{By: splice.Upstream, How: splice.RST, Errno: unix.ECONNRESET}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			engines := []*splice.Engine{{}, {}}
			tun := open(t, engines[0], test.config)
			begin := time.Now()
			if test.before != nil {
				test.before(t, tun)
			}
			for moves := range 3 {
				before := tun.pair.Stats()
				tun.move(engines[1-moves%2])
				if after := tun.pair.Stats(); !test.moving && !sameStats(before, after) {
					t.Errorf("move %d: got %+v; want %+v", moves, after, before)
				}
			}
			if test.after != nil {
				test.after(t, tun)
			}
			if test.end.How == splice.Timeout { // the peers do nothing more
				until(t, "its end has begun", func() bool { return tun.pair.Cause() != nil })
			}
			tun.client.Close()
			tun.upstream.Close()
			end := tun.end()
			if end.Cause != test.end {
				t.Errorf("got %+v; want %+v", end.Cause, test.end)
			}
			if since := begin.Sub(end.Opened); since.Abs() > time.Second {
				t.Errorf("opened %v before the first move", since)
			}
		})
	}
}

// sameStats compares stats but for what the conversion of clocks loses on a busy machine.
func sameStats(a, b splice.Stats) bool {
	for side := range a.From {
		near := func(a, b time.Time) bool { return a.Sub(b).Abs() <= time.Second }
		f, g := a.From[side], b.From[side]
		if !near(f.LastData, g.LastData) || !near(f.LastActive, g.LastActive) || f.Bytes != g.Bytes || f.Messages != g.Messages || f.Opaque != g.Opaque {
			return false
		}
	}
	return true
}

func TestNotFrozen(t *testing.T) {
	portable := open(t, &splice.Engine{Portable: true}, splice.Config{})
	if _, err := portable.pair.Freeze(); err != splice.ErrPortable {
		t.Errorf("got %v; want %v", err, splice.ErrPortable)
	}
	twice := open(t, new(splice.Engine), splice.Config{})
	frozen, err := twice.pair.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twice.pair.Freeze(); err != splice.ErrFrozen {
		t.Errorf("got %v; want %v", err, splice.ErrFrozen)
	}
	frozen.Thaw()
	ended := open(t, new(splice.Engine), splice.Config{})
	ended.client.Close()
	ended.upstream.Close()
	ended.end()
	until(t, "the engine has ended", func() bool {
		_, err = ended.pair.Freeze()
		return err == splice.ErrEnding
	})
}

// TestClosedWhileFrozen orders an end that takes effect when the tunnel goes on.
func TestClosedWhileFrozen(t *testing.T) {
	tun := open(t, new(splice.Engine), splice.Config{})
	frozen, err := tun.pair.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	tun.pair.Close("test", 1001, "")
	tun.client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := tun.client.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes, %v, from a frozen tunnel", n, err)
	}
	frozen.Thaw()
	expect(t, tun.client, []byte{0x88, 2, 1001 >> 8, 1001 & 0xff})
}

// FuzzRecord imports what may be a record. Whatever it says, it is refused, or a tunnel that ends.
func FuzzRecord(f *testing.F) {
	e := new(splice.Engine)
	tun := open(f, e, splice.Config{PingEvery: time.Hour})
	write(f, tun.client, message(splice.Client, noise(100))[:50])
	until(f, "bytes", func() bool { return tun.pair.Stats().From[splice.Client].Bytes == 50 })
	frozen, err := tun.pair.Freeze()
	if err != nil {
		f.Fatal(err)
	}
	record := frozen.Record
	frozen.Thaw()
	f.Add(record)
	f.Add(record[:len(record)/2])
	f.Add(slices.Concat(record, record))
	for _, change := range []string{
		`"version":2`, `"version":1,"needs":["wings"]`, `"version":1,"later":{"a":1}`, `"version":1,"lingerTimeout":-1`,
		`"version":1,"cause":{"by":7,"how":"FIN"}`, `"version":1,"half":{"by":2,"at":1}`, `"version":1,"order":{"code":1,"at":1}`,
		`"version":1,"cause":{"by":2,"how":"policy","why":"x"},"order":{"code":1001,"at":-5}`,
	} {
		f.Add(bytes.Replace(record, []byte(`"version":1`), []byte(change), 1))
	}
	f.Add(bytes.ReplaceAll(record, []byte(`"rest":`), []byte(`"rest":9`)))
	f.Fuzz(func(t *testing.T, record []byte) {
		var fds, peers [2]int // sockets without ports, of which there are only so many
		for side := range fds {
			both, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			fds[side], peers[side] = both[0], both[1]
			defer unix.Close(peers[side])
		}
		ended := make(chan splice.End, 1)
		pair, err := e.Import(record, fds[0], fds[1], func(end splice.End) { ended <- end })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "splice: ") && !strings.HasPrefix(err.Error(), "wsframe: ") {
				t.Errorf("got %v", err)
			}
			unix.Close(fds[0])
			unix.Close(fds[1])
			return
		}
		if frozen, err := pair.Freeze(); err == nil {
			if !json.Valid(frozen.Record) {
				t.Errorf("got %q", frozen.Record)
			}
			frozen.Thaw()
		}
		pair.Cut("test over")
		select {
		case <-ended:
		case <-time.After(wait):
			t.Fatalf("does not end: %s", record)
		}
	})
}

// descriptor returns one more descriptor for a socket, whose own it closes.
func descriptor(t *testing.T, c interface {
	syscall.Conn
	io.Closer
}) (fd int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return fd
}

// TestImportRefuses imports with descriptors that are none of a tunnel's.
func TestImportRefuses(t *testing.T) {
	e := new(splice.Engine)
	tun := open(t, e, splice.Config{})
	frozen, err := tun.pair.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Thaw()
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(udp)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listening := descriptor(t, l.(*net.TCPListener))
	defer unix.Close(listening)
	before := len(descriptors())
	for _, fds := range [][2]int{
		{-1, frozen.Upstream}, {frozen.Client, 1 << 20}, {int(file.Fd()), frozen.Upstream}, {frozen.Client, udp},
		{frozen.Client, frozen.Client}, {listening, frozen.Upstream},
	} {
		if _, err := e.Import(frozen.Record, fds[0], fds[1], nil); err == nil {
			t.Errorf("%v were taken", fds)
		}
	}
	if got := len(descriptors()) - before; got != 0 {
		t.Errorf("%d more descriptors", got)
	}
}
