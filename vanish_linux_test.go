package slipswitch_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"golang.org/x/sys/unix"
)

// vanish makes a connection look to its peer as if this end's machine had gone:
// all that comes is dropped before TCP sees it.
func vanish(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestVanished: a side whose machine is gone is found though the other goes on
// to send, and told from one that is there but does not read.
func TestVanished(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})}}
	const timeout = 4 * time.Second
	for scheme, config := range map[string]*tls.Config{"http": nil, "https": config} {
		type far struct {
			net.Conn
			tcp *net.TCPConn
		}
		open := func(t *testing.T) (g *gateway, client *peer, up far) {
			ends := make(chan far, 1)
			u := startScript(t, func(u *upstream, p *peer) bool {
				var conn net.Conn = p.TCPConn
				p.SetReadBuffer(4 << 10)
				if config != nil {
					conn = tls.Server(p.TCPConn, config)
				}
				head := make([]byte, 0, 4096)
				for !strings.HasSuffix(string(head), "\r\n\r\n") {
					var b [1]byte
					if _, err := io.ReadFull(conn, b[:]); err != nil {
						return false
					}
					head = append(head, b[0])
				}
				io.WriteString(conn, switching())
				ends <- far{conn, p.TCPConn}
				<-t.Context().Done()
				return false
			})
			g = startGateway(t, &slipswitch.Proxy{TLSProfiles: map[string]*tls.Config{"": {RootCAs: ca.pool}}},
				slipswitch.Route{Path: "/", AckTimeout: timeout, Upstreams: slipswitch.To(scheme + strings.TrimPrefix(u.url, "http"))})
			client = g.dial()
			client.send(handshake("/"))
			if a := client.answer("GET"); a.StatusCode != 101 {
				t.Fatalf("got %s", a.Status)
			}
			return g, client, receive(t, "the upstream's end", ends)
		}
		const keepalive = "\x82\x8d\x00\x00\x00\x00hello, world!"
		// gone sends now and then until the report comes.
		gone := func(t *testing.T, g *gateway, by slipswitch.By, send func() error) {
			t.Helper()
			begin := time.Now()
			every := time.NewTicker(timeout / 12)
			defer every.Stop()
			for {
				select {
				case r := <-g.reports:
					if r.By != by || r.How != slipswitch.HowTimeout || r.Errno != "connection timed out" {
						t.Errorf("got %+v; want a timeout by the %s", r, by)
					}
					if took := time.Since(begin); took > 3*timeout {
						t.Errorf("it took %v", took)
					}
					return
				case <-every.C:
					send() // fails at the end
				case <-time.After(wait):
					t.Fatal("nobody has noticed")
				}
				if time.Since(begin) > wait {
					t.Fatal("nobody has noticed")
				}
			}
		}
		t.Run(scheme+"/upstream", func(t *testing.T) {
			t.Parallel()
			g, client, up := open(t)
			vanish(t, up.tcp)
			gone(t, g, slipswitch.ByUpstream, func() error { _, err := io.WriteString(client.TCPConn, keepalive); return err })
		})
		t.Run(scheme+"/client", func(t *testing.T) {
			t.Parallel()
			g, client, up := open(t)
			vanish(t, client.TCPConn)
			gone(t, g, slipswitch.ByClient, func() error { _, err := io.WriteString(up.Conn, "\x82\x02hi"); return err })
		})
		t.Run(scheme+"/one message", func(t *testing.T) {
			t.Parallel()
			g, client, up := open(t)
			vanish(t, up.tcp)
			client.send(keepalive)
			gone(t, g, slipswitch.ByUpstream, func() error { return nil })
		})
		flood := func(client *peer) (done chan int) {
			done = make(chan int, 1)
			go func() {
				n := 0
				client.SetWriteDeadline(time.Now().Add(wait))
				for range 100 {
					k, err := io.WriteString(client.TCPConn, "\x82\xfe\x20\x00\x00\x00\x00\x00"+strings.Repeat("x", 8192))
					if n += k; err != nil {
						break
					}
				}
				done <- n
			}()
			return done
		}
		t.Run(scheme+"/gone while it did not read", func(t *testing.T) {
			t.Parallel()
			g, client, up := open(t)
			done := flood(client)
			time.AfterFunc(timeout/20, func() { vanish(t, up.tcp) })
			gone(t, g, slipswitch.ByUpstream, func() error { return nil })
			client.Close()
			<-done
		})
		t.Run(scheme+"/does not read", func(t *testing.T) {
			t.Parallel()
			g, client, up := open(t)
			done := flood(client)
			select {
			case r := <-g.reports:
				t.Fatalf("got %+v; want the tunnel to stay", r)
			case <-time.After(3 * timeout):
			}
			go io.Copy(io.Discard, up.Conn)
			if n := receive(t, "all is sent", done); n != 100*8200 {
				t.Errorf("sent %d bytes; want all", n)
			}
			client.Close()
			up.tcp.Close()
			g.report()
		})
	}
}
