//go:build unix

package http1_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

// childEnv makes this program the upstream of benchmarks, whose time is not to
// be counted.
const childEnv = "HTTP1_UPSTREAM"

func init() {
	if os.Getenv(childEnv) != "" {
		beUpstream()
	}
}

// beUpstream answers whatever it reads until its input ends.
func beUpstream() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				panic(err)
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 16<<10)
				for {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					if string(b[:min(n, 4)]) == "sink" {
						io.Copy(io.Discard, struct{ io.Reader }{conn})
						return
					}
					answer := benchAnswer
					if strings.HasPrefix(string(b[:n]), "GET /large") {
						answer = benchLarge
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	fmt.Println(listener.Addr())
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

const benchHead = "HTTP/1.1 200 OK\nContent-Type: text/html; charset=utf-8\nDate: Mon, 02 Jan 2006 15:04:05 GMT\nServer: bench\n" +
	"Cache-Control: no-store\nEtag: \"0123456789\"\nVary: Accept-Encoding\n"

var (
	benchAnswer = []byte(crlf(benchHead+"Content-Length: 1024\n\n") + strings.Repeat("x", 1024))
	benchLarge  = []byte(crlf(benchHead+"Content-Length: 16777216\n\n") + strings.Repeat("x", 16<<20))
)

// A benchUpstream is another process.
func benchUpstream(b *testing.B) (address string) {
	command := exec.Command(os.Args[0], "-test.run=^$")
	command.Env = append(os.Environ(), childEnv+"=1")
	input, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		input.Close()
		command.Wait()
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

var benchHeader = http.Header{"Accept": {"text/html,application/xhtml+xml"}, "Accept-Encoding": {"gzip, br"}, "Accept-Language": {"en"},
	"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64)"}, "Cookie": {"session=0123456789abcdef"}, "X-Forwarded-For": {"192.0.2.1"},
	"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"example.com"}, "X-Real-Ip": {"192.0.2.1"}, "Via": {"1.1 slipswitch"}}

// A getter asks for a path and drops the answer.
type getter func(ctx context.Context, path string) (int64, error)

var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func byHTTP1(c *http1.Client, address string) getter {
	return func(ctx context.Context, path string) (int64, error) {
		q := &http1.Request{Method: "GET", Path: path, Host: "example.com", Header: benchHeader}
		r, err := c.RoundTrip(ctx, http1.Key{Scheme: "http", Address: address}, q)
		if err != nil {
			return 0, err
		}
		defer r.Close()
		return r.WriteTo(nowhere{})
	}
}

func byTransport(transport *http.Transport, address string) getter {
	return func(ctx context.Context, path string) (int64, error) {
		q := (&http.Request{Method: "GET", URL: &url.URL{Scheme: "http", Host: address, Opaque: path}, Host: "example.com",
			ProtoMajor: 1, ProtoMinor: 1, Header: benchHeader}).WithContext(ctx)
		r, err := transport.RoundTrip(q)
		if err != nil {
			return 0, err
		}
		defer r.Body.Close()
		buf := buffers.Get().(*[32 << 10]byte)
		defer buffers.Put(buf)
		return io.CopyBuffer(nowhere{}, r.Body, buf[:])
	}
}

func newTransport() *http.Transport {
	return &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
}

// processorTime is this process's.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkProcessor compares the processor time of http1 and http.Transport,
// in turns, with 32 requests at once.
func BenchmarkProcessor(b *testing.B) {
	address := benchUpstream(b)
	c := &http1.Client{Dial: dial}
	defer c.Close()
	transport := newTransport()
	defer transport.CloseIdleConnections()
	getters := []getter{byHTTP1(c, address), byTransport(transport, address)}
	const atOnce, each = 32, 20
	var spent [2]time.Duration
	run := func(get getter) {
		var done sync.WaitGroup
		for range atOnce {
			done.Go(func() {
				for range each {
					ctx, cancel := context.WithCancel(b.Context())
					if n, err := get(ctx, "/"); n != 1024 || err != nil {
						b.Errorf("got %d, %v", n, err)
					}
					cancel()
				}
			})
		}
		done.Wait()
	}
	requests := 0
	for b.Loop() {
		requests += atOnce * each
		for i, get := range getters {
			before := processorTime()
			run(get)
			spent[i] += processorTime() - before
		}
	}
	ours, theirs := float64(spent[0].Nanoseconds()), float64(spent[1].Nanoseconds())
	b.ReportMetric(ours/1000/float64(requests), "µs/http1")
	b.ReportMetric(theirs/1000/float64(requests), "µs/transport")
	b.ReportMetric(ours/theirs, "ratio")
}

func BenchmarkGet(b *testing.B) {
	address := benchUpstream(b)
	c := &http1.Client{Dial: dial}
	defer c.Close()
	transport := newTransport()
	defer transport.CloseIdleConnections()
	for name, get := range map[string]getter{"http1": byHTTP1(c, address), "transport": byTransport(transport, address)} {
		b.Run(name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := get(ctx, "/"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLarge moves 16 MiB to a TCP connection.
func BenchmarkLarge(b *testing.B) {
	address := benchUpstream(b)
	to, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	io.WriteString(to, "sink")
	defer to.Close()
	c := &http1.Client{Dial: dial}
	defer c.Close()
	for _, spliced := range []bool{true, false} {
		b.Run(fmt.Sprintf("spliced=%v", spliced), func(b *testing.B) {
			var w io.Writer = to
			if !spliced {
				w = struct{ io.Writer }{to}
			}
			b.SetBytes(16 << 20)
			before := processorTime()
			n := 0
			for b.Loop() {
				n++
				r, err := c.RoundTrip(b.Context(), http1.Key{Address: address}, &http1.Request{Method: "GET", Path: "/large"})
				if err != nil {
					b.Fatal(err)
				}
				if n, err := r.WriteTo(w); n != 16<<20 || err != nil {
					b.Fatal(n, err)
				}
				r.Close()
			}
			b.ReportMetric(float64((processorTime()-before).Microseconds())/float64(n)/16, "µs/MiB")
		})
	}
}
