package splice_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// A late is a connection whose reader hears of an order only when the test wants it, as if the goroutine that gives the
// order had lost its processor there.
type late struct {
	net.Conn
	heard chan struct{}
}

func (c late) SetReadDeadline(at time.Time) error {
	if !at.IsZero() {
		<-c.heard
	}
	return c.Conn.SetReadDeadline(at)
}

func (c late) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// However fast the one side answers its Close frame, or just ends, the other gets the gateway's.
func TestCloseAnsweredAtOnce(t *testing.T) {
	answer := frame(splice.Upstream, 8, true, []byte{1012 >> 8, 1012 & 0xff})
	for name, words := range map[string][]byte{"answer": answer, "only FIN": nil} {
		for _, over := range []string{"plain", "TLS"} {
			t.Run(name+" "+over, func(t *testing.T) {
				t.Parallel()
				e := &splice.Engine{Portable: true}
				client, clientSide := connect(t)
				near, far := connect(t)
				var upstream, upstreamSide net.Conn = near, far
				if over == "TLS" {
					upstream, upstreamSide = secure(t, near, far)
				}
				heard := make(chan struct{})
				tun := start(t, e, splice.Config{Client: clientSide, Upstream: late{upstreamSide, heard}}, client, near)
				hello := [2][]byte{message(splice.Client, []byte("hello")), message(splice.Upstream, []byte("hello"))}
				write(t, client, hello[0])
				write(t, upstream, hello[1])
				expect(t, upstream, hello[0])
				expect(t, client, hello[1])
				go tun.pair.Close("drain", 1012, "gone")
				closeFrame := make([]byte, 12)
				upstream.SetReadDeadline(time.Now().Add(wait))
				if _, err := upstream.Read(closeFrame); err != nil || closeFrame[0] != 0x88 {
					t.Fatalf("the upstream got % x, %v; want a Close frame", closeFrame, err)
				}
				if words != nil {
					write(t, upstream, words)
				}
				upstream.(interface{ CloseWrite() error }).CloseWrite()
				until(t, "what the upstream said is read", func() bool { return tun.pair.Over(splice.Upstream) })
				close(heard)
				expect(t, client, []byte("\x88\x06\x03\xf4gone"))
				write(t, client, frame(splice.Client, 8, true, []byte{1012 >> 8, 1012 & 0xff}))
				expectEOF(t, client)
				client.Close()
				upstream.Close()
				if end := tun.end(); end.By != splice.Gateway || end.Why != "drain" {
					t.Errorf("got %+v", end.Cause)
				}
			})
		}
	}
}

// A connection that cannot be shut down for writing ends with the other side, but not in the midst of a frame for that.
func TestEndWithoutHalfClose(t *testing.T) {
	for name, order := range map[string]func(*tunnel){
		"FIN":   func(tun *tunnel) { tun.client.CloseWrite() },
		"order": func(tun *tunnel) { tun.pair.Close("drain", 1012, "") },
		"FIN, then order": func(tun *tunnel) {
			tun.client.CloseWrite()
			until(t, "the client's end is read", func() bool { return tun.pair.Over(splice.Client) })
			tun.pair.Close("drain", 1012, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &splice.Engine{Portable: true}
			client, clientSide := connect(t)
			upstream, upstreamSide := connect(t)
			tun := start(t, e, splice.Config{Client: clientSide, Upstream: opaque{upstreamSide}}, client, upstream)
			long := message(splice.Upstream, noise(100<<10))
			write(t, upstream, long[:60<<10])
			expect(t, client, long[:60<<10])
			order(tun)
			time.Sleep(2500 * time.Millisecond) // a frame has 5 s to come to its end
			write(t, upstream, long[60<<10:])
			expect(t, client, long[60<<10:])
			client.Close()
			upstream.SetReadDeadline(time.Now().Add(wait))
			io.Copy(io.Discard, upstream)
			upstream.Close()
			tun.end()
		})
	}
}

// A tunnel of which one side has ended long before the order is not cut in the midst of a frame either.
func TestOrderAfterHalfClose(t *testing.T) {
	onPumps(t, func(t *testing.T, e *splice.Engine) {
		tun := open(t, e, splice.Config{})
		long := message(splice.Upstream, noise(100<<10))
		write(t, tun.upstream, long[:60<<10])
		expect(t, tun.client, long[:60<<10])
		tun.client.CloseWrite()
		expectEOF(t, tun.upstream)
		time.Sleep(2500 * time.Millisecond)
		tun.pair.Close("drain", 1012, "")
		write(t, tun.upstream, long[60<<10:])
		expect(t, tun.client, append(long[60<<10:], 0x88, 2, 1012>>8, 1012&0xff))
		expectEOF(t, tun.client)
		tun.upstream.Close()
		tun.end()
	})
}
