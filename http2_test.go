package slipswitch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch"
)

// An http2Frame is one frame of HTTP/2 (RFC 9113 §4.1), on stream 1 or, for
// SETTINGS and PING, on none.
type http2Frame struct {
	kind, flags byte
	stream      byte
	payload     string
}

const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway = 0, 1, 3, 4, 6, 7
	endStream, endHeaders                                                      = 1, 4
)

func (f http2Frame) String() string {
	n := len(f.payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), f.kind, f.flags, 0, 0, 0, f.stream}) + f.payload
}

// fields returns a header block: names and values, literal, not indexed (RFC 7541
// §6.2.2).
func fields(pairs ...string) (block string) {
	for i, s := range pairs {
		if i%2 == 0 {
			block += "\x00"
		}
		block += string([]byte{byte(len(s))}) + s
	}
	return block
}

// http2Upstream accepts connections that speak HTTP/2, by TLS if there is a
// configuration, and lets answer write to each when a request's HEADERS have come.
// It answers no PING.
func http2Upstream(t *testing.T, config *tls.Config, answer func(net.Conn)) slipswitch.Upstream {
	t.Helper()
	u := startScript(t, func(u *upstream, p *peer) bool {
		var conn net.Conn = p
		if config != nil {
			conn = tls.Server(p.TCPConn, config)
		}
		if _, err := io.ReadFull(conn, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
			return false
		}
		io.WriteString(conn, http2Frame{kind: frameSettings}.String())
		for head := make([]byte, 9); ; {
			if _, err := io.ReadFull(conn, head); err != nil {
				return false
			}
			io.CopyN(io.Discard, conn, int64(head[1])<<8|int64(head[2]))
			if head[3] == frameHeaders {
				answer(conn)
			}
		}
	})
	scheme := "h2c"
	if config != nil {
		scheme = "https"
	}
	return slipswitch.Upstream{URL: scheme + strings.TrimPrefix(u.url, "http")}
}

// TestResponseEndsBeforeRequest: a call whose server has had enough ends, though
// its client goes on listening and says nothing; and so does one whose server
// breaks off, at whatever point.
func TestResponseEndsBeforeRequest(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{NextProtos: []string{"h2"}, Certificates: []tls.Certificate{
		ca.sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})}}
	begin := http2Frame{frameHeaders, endHeaders, 1, fields(":status", "200", "content-type", "application/grpc")}.String()
	message := http2Frame{frameData, 0, 1, "\x00\x00\x00\x00\x02hi"}.String()
	denied := fields("grpc-status", "7", "grpc-message", "permission denied")
	end := http2Frame{frameHeaders, endHeaders | endStream, 1, denied}.String()
	enough := http2Frame{frameReset, 0, 1, "\x00\x00\x00\x00"}.String() // NO_ERROR: the request is not needed (RFC 9113 §8.1)
	broken := http2Frame{frameReset, 0, 1, "\x00\x00\x00\x02"}.String() // INTERNAL_ERROR
	for name, test := range map[string]struct {
		frames string
		closes bool
		status int
		grpc   string // the status in the trailers; "": it breaks off
	}{
		"trailers":                    {begin + message + end, false, 200, "7"},
		"trailers, and enough":        {begin + message + end + enough, false, 200, "7"},
		"trailers only":               {http2Frame{frameHeaders, endHeaders | endStream, 1, fields(":status", "200") + denied}.String(), false, 200, "7"},
		"an error with a body":        {http2Frame{frameHeaders, endHeaders, 1, fields(":status", "413")}.String() + message + end, false, 413, "7"},
		"broken":                      {begin + message + broken, false, 200, ""},
		"broken before the response":  {broken, false, 502, ""},
		"gone in the response":        {begin + message, true, 200, ""},
		"gone before the response":    {"", true, 502, ""},
		"hint, then trailers":         {http2Frame{frameHeaders, endHeaders, 1, fields(":status", "103")}.String() + begin + end, false, 200, "7"},
		"hint, then gone":             {http2Frame{frameHeaders, endHeaders, 1, fields(":status", "103")}.String(), true, 502, ""},
		"broken after a whole answer": {begin + message + end + broken, false, 200, "7"},
	} {
		for scheme, config := range map[string]*tls.Config{"h2c": nil, "https": config} {
			t.Run(scheme+"/"+name, func(t *testing.T) {
				t.Parallel()
				u := http2Upstream(t, config, func(conn net.Conn) {
					io.WriteString(conn, test.frames)
					if test.closes {
						conn.Close()
					}
				})
				p := &slipswitch.Proxy{TLSProfiles: map[string]*tls.Config{"": {RootCAs: ca.pool}}}
				g := startGateway(t, p, slipswitch.Route{Path: "/", Upstreams: []slipswitch.Upstream{u}})
				body, silent := io.Pipe()
				defer silent.Close()
				q, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+g.addr+"/x.X/Call", body)
				q.Host = host
				q.Header.Set("Content-Type", "application/grpc")
				q.Header.Set("Te", "trailers")
				over := time.AfterFunc(wait/2, func() { t.Error("it does not end"); silent.CloseWithError(errors.New("enough")) })
				defer over.Stop()
				response, err := http2Client(t).RoundTrip(q)
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				_, err = io.Copy(io.Discard, response.Body)
				grpc := response.Trailer.Get("Grpc-Status") + response.Header.Get("Grpc-Status")
				if response.StatusCode != test.status || test.grpc != "" && (grpc != test.grpc || err != nil) || test.grpc == "" && test.status == 200 && err == nil {
					t.Errorf("got %s, Grpc-Status %q, %v; want %d, %q", response.Status, grpc, err, test.status, test.grpc)
				}
			})
		}
	}
}

// TestVanishedHTTP2Upstream: a connection that answers no ping is given up, and
// with it the requests that wait on it.
func TestVanishedHTTP2Upstream(t *testing.T) {
	for name, answers := range map[string]bool{"asked before": true, "from the start": false} {
		synctest.Test(t, func(t *testing.T) {
			dialled := 0
			p := &slipswitch.Proxy{Router: new(slipswitch.Router), Logger: slog.New(slog.DiscardHandler),
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					dialled++
					near, far := net.Pipe()
					go func() {
						io.ReadFull(far, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
						go io.WriteString(far, http2Frame{kind: frameSettings}.String())
						for head := make([]byte, 9); ; {
							if _, err := io.ReadFull(far, head); err != nil {
								return
							}
							io.CopyN(io.Discard, far, int64(head[1])<<8|int64(head[2]))
							if head[3] == frameHeaders && head[8] == 1 && answers {
								go io.WriteString(far, http2Frame{frameHeaders, endHeaders | endStream, 1, fields(":status", "204")}.String())
							}
						}
					}()
					return near, nil
				}}
			if _, err := p.Router.Update(func(tx *slipswitch.Txn) error {
				tx.Put(slipswitch.Route{Path: "/", Upstreams: slipswitch.To("h2c://ide.internal")})
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			get := func() int {
				w := httptest.NewRecorder()
				p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "http://"+host+"/", nil))
				return w.Code
			}
			if answers {
				if got := get(); got != 204 {
					t.Fatalf("%s: got %d", name, got)
				}
			}
			begin := time.Now()
			if got := get(); got != 502 || time.Since(begin) > time.Minute {
				t.Errorf("%s: got %d after %v; want 502 within a minute", name, got, time.Since(begin))
			}
			if dialled != 1 {
				t.Errorf("%s: dialled %d times", name, dialled)
			}
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
