package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
)

// Tunnels are compared through whole gateways, each a process of its own, one
// after the other: examples/gateway, the same with TLS to the clients, HAProxy
// and a bare httputil.ReverseProxy. The backend is another process, the clients
// are in this one.

var quietFor = flag.Duration("quiet", 1200*time.Millisecond, "how long BenchmarkQuietTunnel waits after the last byte")

// subjects are the gateways to compare, by the names that the metrics have.
var subjects = []string{"slipswitch", "tls", "haproxy", "bare"}

// A subject is one that runs.
type subject struct {
	addr       string
	pid        int
	secure     bool
	goroutines func() int
	stop       func()
}

// program is examples/gateway, built once.
var program = sync.OnceValues(func() (string, error) {
	return buildGateway(context.Background(), dir, false)
})

// startSubject starts a gateway in front of a backend; nil if it is not installed.
func startSubject(b *testing.B, name, backend string) *subject {
	switch name {
	case "bare":
		p := start(b, "bare", backend)
		return &subject{addr: p.addr, pid: p.cmd.Process.Pid, stop: p.stop}
	case "haproxy":
		return startHAProxy(b, backend)
	}
	file, err := program()
	if err != nil {
		b.Fatal(err)
	}
	var args []string
	if name == "tls" {
		args = certificate(b)
	}
	g, err := startGateway(b.Context(), file, func(map[string]any) {}, args...)
	if err != nil {
		b.Fatal(err)
	}
	change := slipswitch.Change{Put: &slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://" + backend)}}
	if err := g.call(b.Context(), "POST", "/v1/batch", map[string]any{"changes": []slipswitch.Change{change}}, nil); err != nil {
		b.Fatal(err)
	}
	return &subject{addr: g.public, pid: g.cmd.Process.Pid, secure: name == "tls",
		goroutines: func() int {
			f, err := g.figures(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			return f.Goroutines
		},
		stop: func() {
			g.cmd.Process.Kill() // it would close each tunnel with care
			<-g.ended
		}}
}

func startHAProxy(b *testing.B, backend string) *subject {
	file, err := exec.LookPath("haproxy")
	if err != nil {
		file, err = exec.LookPath("/usr/sbin/haproxy")
	}
	if err != nil {
		b.Log("HAProxy is not installed and so not compared (Debian: apt-get install haproxy)")
		return nil
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	config := filepath.Join(b.TempDir(), "haproxy.cfg")
	os.WriteFile(config, fmt.Appendf(nil, `
global
	maxconn 9000
defaults
	mode http
	timeout connect 10s
	timeout client 1h
	timeout server 1h
	timeout tunnel 1h
listen gateway
	bind %s
	server backend %s
`, addr, backend), 0o644)
	cmd := exec.Command(file, "-db", "-q", "-f", config)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	stop := func() { cmd.Process.Kill(); cmd.Wait() }
	for range 100 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return &subject{addr: addr, pid: cmd.Process.Pid, stop: stop}
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	b.Fatal("HAProxy does not start")
	return nil
}

// certificate returns the flags for one that nobody should trust.
func certificate(b *testing.B) []string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644)
	os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600)
	return []string{"-tls-cert=" + certFile, "-tls-key=" + keyFile}
}

// open opens n tunnels.
func (s *subject) open(b *testing.B, n int) []net.Conn {
	conns := make([]net.Conn, n)
	inParallel(n, func(i int) {
		conn, err := dial(s.addr)
		if err == nil && s.secure {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		if err == nil {
			_, err = io.WriteString(conn, "GET /ide HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		}
		var head []byte
		for part := make([]byte, 4<<10); err == nil && !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
			var n int
			n, err = conn.Read(part)
			head = append(head, part[:n]...)
		}
		if err != nil || !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			b.Errorf("%v, %s", err, head)
			return
		}
		conns[i] = conn
	})
	if b.Failed() {
		b.FailNow()
	}
	return conns
}

// inParallel calls f for 0 to n-1, 32 at a time.
func inParallel(n int, f func(i int)) {
	var all sync.WaitGroup
	for worker := range 32 {
		all.Go(func() {
			for i := worker; i < n; i += 32 {
				f(i)
			}
		})
	}
	all.Wait()
}

// frame returns a message of zeros.
func frame(size int, masked bool) []byte {
	b := []byte{0x82, byte(size)}
	if size > 125 {
		b = binary.BigEndian.AppendUint64([]byte{0x82, 127}, uint64(size))
	}
	if masked {
		b[1] |= 0x80
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, make([]byte, size)...)
}

// exchange sends a message and receives the answer, so many times.
func exchange(b *testing.B, conn net.Conn, size, times int) {
	sent, answer := frame(size, true), make([]byte, len(frame(size, false)))
	for range times {
		_, err := conn.Write(sent)
		if err == nil {
			_, err = io.ReadFull(conn, answer)
		}
		if err != nil {
			b.Errorf("a message of %d bytes and its answer: %v", size, err)
			return
		}
	}
}

// answer is the backend's end of a tunnel: each message is answered with one of
// the same size.
func answer(conn net.Conn, in *bufio.Reader) {
	defer conn.Close()
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		size := uint64(head[1] & 0x7f)
		if size == 127 {
			binary.Read(in, binary.BigEndian, &size)
		}
		if _, err := in.Discard(4 + int(size)); err != nil {
			return
		}
		if _, err := conn.Write(frame(int(size), false)); err != nil {
			return
		}
	}
}

// sockets is the backend.
func sockets([]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		go answer(conn, rw.Reader)
	})
}

// BenchmarkQuietTunnel: resident memory of the gateway for each quiet tunnel,
// from the slope between 1,000 and 4,000 of them. With -short it is a
// quarter of them, which is too few for more than to see that it works.
func BenchmarkQuietTunnel(b *testing.B) {
	steps := []int{1000, 3000}
	if testing.Short() {
		steps = []int{250, 750}
	}
	for _, moved := range []int{0, 128 << 10} {
		b.Run(fmt.Sprintf("after%dKiB", moved>>10), func(b *testing.B) {
			backend := start(b, "sockets")
			for b.Loop() {
				b.ReportMetric(0, "ns/op")
				each := map[string]float64{}
				for _, name := range subjects {
					s := startSubject(b, name, backend.addr)
					if s == nil {
						continue
					}
					var conns []net.Conn
					var at [2]usage
					var goroutines [2]int
					for step, n := range steps {
						more := s.open(b, n)
						if moved > 0 {
							inParallel(n, func(i int) { exchange(b, more[i], moved/2, 1) })
						}
						conns = append(conns, more...)
						time.Sleep(*quietFor)
						if s.goroutines != nil {
							goroutines[step] = s.goroutines()
						}
						at[step] = usageOf(s.pid)
					}
					each[name] = float64(at[1].resident-at[0].resident) / 1024 / float64(steps[1])
					b.ReportMetric(each[name], name+"-KiB")
					if name == "slipswitch" {
						b.ReportMetric(float64(at[1].descriptors-at[0].descriptors)/float64(steps[1]), "descriptors/tunnel")
						b.ReportMetric(float64(at[1].pipes), "pipes")
						b.ReportMetric(float64(goroutines[1]-goroutines[0]), "more-goroutines")
					}
					s.stop()
					for _, conn := range conns {
						conn.Close()
					}
				}
				for _, name := range []string{"haproxy", "bare"} {
					if each[name] > 0 {
						b.ReportMetric(each["slipswitch"]/each[name], "of-"+name)
					}
				}
			}
		})
	}
}

// BenchmarkSmallMessage: processor time of the gateway for each 64-byte message,
// to and fro on 64 tunnels at once.
func BenchmarkSmallMessage(b *testing.B) {
	const tunnels, times = 64, 200
	backend := start(b, "sockets")
	running := map[string]*subject{}
	conns := map[string][]net.Conn{}
	for _, name := range subjects {
		if s := startSubject(b, name, backend.addr); s != nil {
			defer s.stop()
			running[name], conns[name] = s, s.open(b, tunnels)
		}
	}
	for b.Loop() {
		took, ratio := map[string][]float64{}, map[string][]float64{}
		for range rounds() {
			for name, s := range running {
				before := usageOf(s.pid).cpu
				var all sync.WaitGroup
				for _, conn := range conns[name] {
					all.Go(func() { exchange(b, conn, 64, times) })
				}
				all.Wait()
				took[name] = append(took[name], float64((usageOf(s.pid).cpu-before).Nanoseconds())/(2*tunnels*times))
			}
			for name := range running {
				ratio[name] = append(ratio[name], took["slipswitch"][len(ratio[name])]/took[name][len(ratio[name])])
			}
		}
		b.ReportMetric(0, "ns/op")
		for name := range running {
			b.ReportMetric(median(took[name]), name+"-ns/message")
			if name == "haproxy" || name == "bare" {
				b.ReportMetric(median(ratio[name]), "of-"+name)
			}
		}
	}
}
