package splice_test

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/slipswitch/slipswitch/internal/splice"
	"golang.org/x/sys/unix"
)

// Where the kernel has no room for more watches, tunnels are carried without, and no peer is blamed.
func TestNoRoomInEpoll(t *testing.T) {
	for refused := range 2 { // which of the two descriptors
		calls := 0
		restore := splice.SetEpollCtl(func(epoll, op, fd int, event *unix.EpollEvent) error {
			if calls++; calls > refused {
				return syscall.ENOSPC
			}
			return unix.EpollCtl(epoll, op, fd, event)
		})
		var log bytes.Buffer
		e := &splice.Engine{Logger: slog.New(slog.NewTextHandler(&log, nil))}
		tun := open(t, e, splice.Config{})
		restore()
		hello := message(splice.Client, []byte("hello"))
		write(t, tun.client, hello)
		expect(t, tun.upstream, hello)
		tun.client.CloseWrite()
		expectEOF(t, tun.upstream)
		tun.upstream.Close()
		if end := tun.end(); end.By != splice.Client || end.How != splice.FIN {
			t.Errorf("got %+v; want the client's FIN", end.Cause)
		}
		if !strings.Contains(log.String(), "no space left on device") {
			t.Errorf("the log has %q", &log)
		}
	}
}

// A socket that somebody makes blocking, before or after, stops no loop.
func TestBlockingSockets(t *testing.T) {
	for _, name := range []string{"before", "after"} {
		t.Run(name, func(t *testing.T) {
			client, clientSide := connect(t)
			upstream, upstreamSide := connectUnix(t) // which is read until there is nothing
			var block []func()
			for _, conn := range []interface{ File() (*os.File, error) }{clientSide, upstreamSide} {
				f, err := conn.File() // shares what the socket is
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				block = append(block, func() { syscall.SetNonblock(int(f.Fd()), false) })
			}
			if name == "before" {
				block[0]()
				block[1]()
			}
			ended := make(chan splice.End, 1)
			pair := new(splice.Engine).Start(splice.Config{Client: clientSide, Upstream: upstreamSide, Ended: func(end splice.End) { ended <- end }})
			for range 3 {
				up, down := message(splice.Client, []byte("up")), message(splice.Upstream, []byte("down"))
				write(t, client, up)
				expect(t, upstream, up)
				write(t, upstream, down)
				expect(t, client, down)
				if name == "after" {
					block[0]()
					block[1]()
				}
			}
			pair.Close("over", 0, "")
			expectEOF(t, client)
			client.Close()
			upstream.Close()
			<-ended
		})
	}
}

// connectUnix returns both ends of a connection through a Unix socket.
func connectUnix(t testing.TB) (near, far *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if far, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	return near, far
}
