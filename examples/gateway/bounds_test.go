package main_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/examples/internal/programtest"
)

// What one connection, and one header, may take of the gateway.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, key := newCertificate(t, 1)
	for name, data := range map[string][]byte{certFile: cert, keyFile: key} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name    string
		args    []string
		streams int
		header  int // that passes; twice as much does not
	}{
		{"defaults", nil, 100, 60 << 10},
		{"flags", []string{"-max-streams=7", "-max-header-bytes=8192"}, 7, 8 << 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := start(t, append(test.args, "-tls-cert="+certFile, "-tls-key="+keyFile)...)
			g.put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To(newIDE(t).URL)})
			insecure := &tls.Config{InsecureSkipVerify: true}
			h2, err := (&http.Transport{TLSClientConfig: insecure.Clone(), ForceAttemptHTTP2: true}).NewClientConn(t.Context(), "https", g.public)
			if err != nil {
				t.Fatal(err)
			}
			defer h2.Close()
			programtest.Eventually(t, "the server says how many streams there may be", func() bool {
				return h2.Available() == test.streams
			})
			transport := &http.Transport{TLSClientConfig: insecure.Clone()} // speaks HTTP/1
			defer transport.CloseIdleConnections()
			for size, want := range map[int]int{test.header: 200, 2 * test.header: 431} {
				r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+g.public+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("X-Long", strings.Repeat("x", size))
				response, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				if response.StatusCode != want {
					t.Errorf("a header of %d bytes: %s; want %d", size, response.Status, want)
				}
			}
		})
	}
}

// /v1/status tells which limit was reached, and how often.
func TestLimitsHit(t *testing.T) {
	g := start(t, "-max-requests-per-client=1")
	asked, answer := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-answer
	}))
	defer slow.Close()
	g.put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To(slow.URL)})
	first := make(chan error, 1)
	go func() {
		_, _, err := g.get("/")
		first <- err
	}()
	programtest.Receive(t, "the upstream is asked", asked)
	if response, _, err := g.get("/"); err != nil || response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
		t.Errorf("got %v, %v; want 503 with Retry-After", response, err)
	}
	close(answer)
	if err := programtest.Receive(t, "the first is answered", first); err != nil {
		t.Error(err)
	}
	var status struct{ LimitsHit map[string]int }
	g.must("GET", "/v1/status", nil, &status)
	if len(status.LimitsHit) != 1 || status.LimitsHit["requestsPerClient"] != 1 {
		t.Errorf("limits hit: %v; want requestsPerClient once", status.LimitsHit)
	}
}

// What an upstream sends unasked is no word in the gateway's log.
func TestUpstreamHasNoSayInTheLog(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{}, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(conn))
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 forged words\r\n\r\n")
			io.Copy(io.Discard, conn)
			conn.Close()
			closed <- struct{}{}
		}
	}()
	defer l.Close()
	g := start(t)
	g.put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To("http://" + l.Addr().String())})
	if response, _, err := g.get("/"); err != nil || response.StatusCode != 200 {
		t.Errorf("got %v, %v; want 200", response, err)
	}
	programtest.Receive(t, "the gateway has closed the connection", closed)
	g.stop()
	if log := g.stderr.String(); strings.Contains(log, "forged words") {
		t.Errorf("the log has %s", log)
	}
}
