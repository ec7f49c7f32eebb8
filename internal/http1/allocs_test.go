//go:build !race

package http1_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

// What a request allocates stays for these reasons:
//
//	1  the Response, with slots for the values of twelve fields: it is the
//	   caller's for as long as he likes, so none is used again for another
//	2  the header's map, of up to eight fields, and
//	3  its group of slots
//	4  the one string that all names and values are parts of;
//	   a field that comes more than once has one more for its values
//
// The Request is the caller's, and not counted. A context is watched, for five
// allocations more, only if a read has taken longer than a tenth of a second.
func TestAllocations(t *testing.T) {
	u := newUpstream(t, func(p *peer) {
		b := make([]byte, 4<<10)
		for {
			if _, err := p.TCPConn.Read(b); err != nil {
				return
			}
			p.TCPConn.Write(smallAnswer)
		}
	})
	c := newClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	q := get("/")
	q.Header = http.Header{"Accept": {"*/*"}, "X-Forwarded-For": {"192.0.2.1"}}
	q.HeaderTimeout, q.StreamTimeout, q.StallTimeout = time.Minute, time.Minute, time.Minute
	key := u.key()
	got := testing.AllocsPerRun(500, func() {
		r, err := c.RoundTrip(ctx, key, q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.WriteTo(nowhere{}); err != nil {
			t.Fatal(err)
		}
		r.Close()
	})
	if got > 4 {
		t.Errorf("got %v allocations a request; want at most 4", got)
	}
}

var smallAnswer = []byte(crlf("HTTP/1.1 200 OK\ncontent-type: text/plain\nDate: x\nServer: y\nSet-Cookie: a\nContent-Length: 5\n\nhello"))

// ParseFields takes the name's spelling to where it lies.
func BenchmarkParseFields(b *testing.B) {
	block := []byte(crlf("content-type: text/html; charset=utf-8\nDate: Mon, 02 Jan 2006 15:04:05 GMT\nserver: bench\nCache-Control: no-store\n" +
		"ETag: \"0123456789\"\nVary: Accept-Encoding\nContent-Length: 1024\n"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := http1.ParseFields(block); err != nil {
			b.Fatal(err)
		}
	}
}
