package http1_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

// One response is never read by two requests, and none that must not be is sent
// twice, whatever upstreams and clients do. Each response names its request: in
// a field and in all of its body.
//
// TestOneResponseForOneRequest is short here; HTTP1_REQUESTS=1000000 makes it
// long.
func TestOneResponseForOneRequest(t *testing.T) {
	requests := 2000
	if testing.Short() {
		requests = 400
	}
	if n := atoi(os.Getenv("HTTP1_REQUESTS")); n > 0 {
		requests = n
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	var seen sync.Map // names of requests that must come once
	u := newUpstream(t, func(p *peer) {
		f := &faulty{peer: p, random: rand.New(rand.NewPCG(uint64(seed), uint64(p.n))), seen: &seen}
		for f.answer() {
		}
	})
	c := newClient(t)
	c.MaxIdlePerKey = 8
	var next, whole atomic.Int64
	var done sync.WaitGroup
	for worker := range 16 {
		done.Go(func() {
			random := rand.New(rand.NewPCG(uint64(seed), uint64(1_000_000+worker)))
			for {
				n := int(next.Add(1))
				if n > requests || t.Failed() {
					return
				}
				if askNamed(t, c, u.key(), fmt.Sprintf("request-%d", n), random) {
					whole.Add(1)
				}
				if random.IntN(500) == 0 {
					c.CloseIdle()
				}
			}
		})
	}
	done.Wait()
	t.Logf("%d requests over %d connections, %d whole", requests, u.accepted(), whole.Load())
	if whole.Load() < int64(requests)/4 {
		t.Errorf("only %d of %d requests got their whole answer", whole.Load(), requests)
	}
}

// askNamed sends a request, and checks that what comes, however much, is its
// own answer. It reports whether all of it came.
func askNamed(t *testing.T, c *http1.Client, key http1.Key, name string, random *rand.Rand) (whole bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	q := &http1.Request{Method: "GET", Path: "/" + name, Host: "h", Header: http.Header{}}
	q.HeaderTimeout, q.StreamTimeout = 500*time.Millisecond, 500*time.Millisecond
	q.ContinueTimeout = 20 * time.Millisecond
	switch random.IntN(8) {
	case 0:
		q.Method = "HEAD"
	case 1, 2, 3:
		q.Method = []string{"POST", "PUT"}[random.IntN(2)]
		text := strings.Repeat(name+" ", random.IntN(3000))
		q.ContentLength = int64(len(text))
		q.Body = strings.NewReader(text)
		if random.IntN(2) == 0 {
			q.Body = streamed(text)
		}
		if random.IntN(2) == 0 && len(text) > 0 {
			q.ContentLength = -1
		}
		if random.IntN(4) == 0 {
			q.Header["Expect"] = []string{"100-continue"}
		}
	}
	if random.IntN(20) == 0 {
		time.AfterFunc(time.Duration(random.IntN(3000))*time.Microsecond, cancel)
	}
	r, err := c.RoundTrip(ctx, key, q)
	if err != nil {
		return false
	}
	defer r.Close()
	if got := r.Header["Name"]; len(got) != 1 || got[0] != name {
		t.Errorf("%s got the answer to %q", name, got)
		return false
	}
	if random.IntN(20) == 0 {
		time.AfterFunc(time.Duration(random.IntN(1000))*time.Microsecond, func() { r.Abort(errors.New("aborted")) })
	}
	var body bytes.Buffer
	switch random.IntN(4) {
	case 0:
		_, err = io.CopyN(&body, r, int64(random.IntN(5000)))
	case 1:
		_, err = body.ReadFrom(struct{ io.Reader }{r})
	default:
		_, err = r.WriteTo(&body)
	}
	if want := answerTo(name, body.Len()); body.String() != want {
		t.Errorf("%s got a body that is not its own", name)
	}
	return err == nil
}

// answerTo returns the first bytes of the answer to a request.
func answerTo(name string, n int) string { return strings.Repeat(name+"\n", n/(len(name)+1)+1)[:n] }

// A faulty peer answers with all the faults that there are.
type faulty struct {
	*peer
	random *rand.Rand
	seen   *sync.Map
}

func (f *faulty) one(of int) bool { return f.random.IntN(of) == 0 }

// answer answers one request, and reports whether there may be another.
func (f *faulty) answer() bool {
	r := f.request()
	if r == nil {
		return false
	}
	name := r.URL.Path[1:]
	early := f.one(8)
	if r.Header.Get("Expect") != "" && !early && !f.one(3) {
		f.send("HTTP/1.1 100 Continue\n\n")
	}
	if !early {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return false
		}
		if r.Method == "POST" {
			if _, twice := f.seen.LoadOrStore(name, true); twice {
				f.t.Errorf("%s was sent twice", name)
			}
		}
	}
	answer, last := f.compose(name, r.Method)
	switch f.random.IntN(40) {
	case 0:
		f.reset()
		return false
	case 1: // half of it
		f.TCPConn.Write(answer[:f.random.IntN(len(answer)+1)])
		if f.one(2) {
			f.reset()
		}
		return false
	case 2: // too much of it, at once
		if last {
			return false // its body may end with the connection
		}
		f.TCPConn.Write(append(answer, answer...))
		return f.one(2)
	case 3: // the end comes after it, and unannounced
		f.TCPConn.Write(answer)
		return false
	case 4:
		f.TCPConn.Write(answer)
		f.CloseWrite()
		io.CopyN(io.Discard, f.TCPConn, 1)
		return false
	case 5: // and what the client is to wait for in vain
		if !f.one(10) {
			break
		}
		f.TCPConn.Write(answer[:f.random.IntN(len(answer)+1)])
		io.CopyN(io.Discard, f.TCPConn, 1)
		return false
	}
	for len(answer) > 0 {
		n := len(answer)
		if f.one(4) {
			n = 1 + f.random.IntN(n)
		}
		if _, err := f.TCPConn.Write(answer[:n]); err != nil {
			return false
		}
		answer = answer[n:]
	}
	if early {
		io.Copy(io.Discard, r.Body)
	}
	return !last
}

// compose makes an answer, and tells whether it is the connection's last.
func (f *faulty) compose(name, method string) (answer []byte, last bool) {
	body := answerTo(name, []int{0, 20, 200, 3000, 3000, 10_000, 10_000, 200_000}[f.random.IntN(8)])
	var b bytes.Buffer
	for f.one(6) {
		b.WriteString("HTTP/1.1 103 Early Hints\r\nName: nobody\r\n\r\n")
	}
	b.WriteString("HTTP/1.1 200 OK\r\nName: " + name + "\r\n")
	switch f.random.IntN(4) {
	case 0:
		b.WriteString("Connection: close\r\n")
		last = true
		if f.one(2) {
			b.WriteString("\r\n")
			break
		}
		fallthrough
	case 1:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(body))
	default:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		if method == "HEAD" {
			break
		}
		w := &chunks{to: &b}
		for rest := body; len(rest) > 0; {
			n := 1 + f.random.IntN(min(len(rest), 20_000))
			io.WriteString(w, rest[:n])
			rest = rest[n:]
		}
		w.end("Sum: " + hex(int(sha256.Sum256([]byte(body))[0])) + "\r\n")
		return b.Bytes(), last
	}
	if method != "HEAD" {
		b.WriteString(body)
	}
	return b.Bytes(), last
}
