package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch/internal/http1"
)

// A scripted connection takes everything and yields given parts, then the end.
type scripted struct{ parts [][]byte }

func (s *scripted) Read(b []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}

func (s *scripted) Write(b []byte) (int, error)      { return len(b), nil }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// segments cuts a text at random places.
func segments(text []byte, random *rand.Rand) (parts [][]byte) {
	for len(text) > 0 {
		n := len(text)
		switch random.IntN(3) {
		case 0:
			n = 1
		case 1:
			n = 1 + random.IntN(n)
		}
		parts = append(parts, bytes.Clone(text[:n]))
		text = text[n:]
	}
	return parts
}

// An outcome is what somebody has made of a response.
type outcome struct {
	Status  int
	Header  http.Header
	Trailer http.Header
	Body    string
	Whole   bool // the body
	err     error
}

// ours reads with http1, in random parts.
func ours(text []byte, method string, random *rand.Rand) (o outcome) {
	c := &http1.Client{Dial: func(context.Context, http1.Key) (net.Conn, error) { return &scripted{segments(text, random)}, nil }}
	defer c.Close()
	r, err := c.RoundTrip(context.Background(), http1.Key{}, &http1.Request{Method: method, Path: "/"})
	if err != nil {
		return outcome{err: err}
	}
	defer r.Close()
	var body bytes.Buffer
	switch random.IntN(3) {
	case 0:
		_, err = r.WriteTo(&body)
	case 1:
		_, err = body.ReadFrom(struct{ io.Reader }{r})
	default:
		for b := make([]byte, 1+random.IntN(20)); err == nil; {
			var n int
			n, err = r.Read(b)
			body.Write(b[:n])
		}
		if err == io.EOF {
			err = nil
		}
	}
	return outcome{r.Status, r.Header, r.Trailer, body.String(), err == nil, err}
}

// theirs reads with net/http.
func theirs(text []byte, method string) (o outcome) {
	reader := bufio.NewReader(bytes.NewReader(text))
	for {
		r, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			return outcome{err: err}
		}
		if r.StatusCode < 200 && r.StatusCode != 101 {
			continue
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		return outcome{r.StatusCode, r.Header, r.Trailer, string(body), err == nil, err}
	}
}

// Where http1 is stricter than net/http: its error, and what of the input
// justifies it.
var stricter = []struct {
	says  string
	where *regexp.Regexp
}{
	{"line that ends without CR", regexp.MustCompile(`(^|[^\r])\n`)},
	{"status line", regexp.MustCompile(`(^|\n)HTTP/(\d\.\d +.|[^1]|1\.[^01]|1\.[01][^ ]|1\.[01] ([^1-9]|.[^0-9]|..[^0-9]|...[^ \r]))`)}, // two spaces, other versions, 0xx
	{"status line", regexp.MustCompile(`HTTP/1\.[01] \d\d\d[^\n]*[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]`)},                                    // control characters in the reason
	{"status line", regexp.MustCompile(`HTTP/1\.[01] \d\d\d[^\n]*\r[^\n]`)},
	{"status line", regexp.MustCompile(`^[^H]|^.[^T]|^..[^T]|^...[^P]|^....[^/]`)},
	{"malformed field", regexp.MustCompile(`\n[ \t]`)},            // folded
	{"malformed field", regexp.MustCompile(`\n[^:\n]* [^:\n]*:`)}, // a space in a name
	{"malformed field", regexp.MustCompile(`\n:`)},                // no name
	{"both Content-Length and Transfer-Encoding", regexp.MustCompile(`(?is)content-length.*transfer-encoding|transfer-encoding.*content-length`)},
	{"not one number", regexp.MustCompile(`(?is)content-length.*content-length`)},
	{"not one number", regexp.MustCompile(`(?i)content-length:[ \t]*\d{19}`)},
	{"not one number", regexp.MustCompile(`(?i)content-length`)}, // net/http does not look at it where no body may be, or for 1xx
	{"other than chunked", regexp.MustCompile(`(?i)HTTP/1\.0(.|\n)*transfer-encoding`)},
	{"where no body is", regexp.MustCompile(`(?is)HTTP/1\.\d 1\d\d.*(transfer-encoding|content-length)`)},
	{"must not be one", regexp.MustCompile(`(?i)\ntrailer:`)},
	{"switches protocols unasked", regexp.MustCompile(`HTTP/1\.[01] 101`)},
	{"malformed chunk", regexp.MustCompile(`\n[0-9a-fA-F]+[ \t]*;[^\n]*[\x00-\x08\x0b-\x1f\x7f]`)}, // control characters in extensions
	{"malformed chunk", regexp.MustCompile(`\n[0-9a-fA-F]{16}`)},                                   // 2^60 bytes
	{"more chunk headers than data", regexp.MustCompile(`;`)},
}

// differ compares what http1 and net/http make of a response.
func differ(t *testing.T, text []byte, method string, random *rand.Rand) {
	t.Helper()
	want := theirs(text, method)
	got := ours(text, method, random)
	if got.err != nil && want.err == nil {
		for _, s := range stricter {
			if strings.Contains(got.err.Error(), s.says) && s.where.Match(text) {
				return
			}
		}
		t.Errorf("%s %q:\nnet/http takes it, and we say %v", method, text, got.err)
		return
	}
	if want.err != nil && got.err == nil {
		t.Errorf("%s %q:\nwe take it, and net/http says %v", method, text, want.err)
		return
	}
	if (got.Status == 0) != (want.Status == 0) {
		for _, s := range stricter { // both refuse; ours earlier
			if got.Status == 0 && strings.Contains(got.err.Error(), s.says) && s.where.Match(text) {
				return
			}
		}
		t.Errorf("%s %q:\ngot %v; net/http %v", method, text, got.err, want.err)
		return
	}
	if got.Status == 0 {
		return
	}
	normalize(&got)
	normalize(&want)
	if !got.Whole { // both have a part of it: what each had read when it noticed
		if n := min(len(got.Body), len(want.Body)); got.Body[:n] != want.Body[:n] {
			t.Errorf("%s %q:\ngot the part %q; net/http %q", method, text, got.Body, want.Body)
		}
		got.Body, want.Body = "", ""
		got.Trailer, want.Trailer = nil, nil
	}
	got.err, want.err = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s %q:\ngot      %+v\nnet/http %+v", method, text, got, want)
	}
}

// normalize takes away what net/http does to a header: framing fields and
// "Connection: close" go, and Pragma gets a Cache-Control.
func normalize(o *outcome) {
	if strings.Contains(strings.ToLower(strings.Join(o.Header["Connection"], ",")), "close") {
		delete(o.Header, "Connection")
	}
	if len(o.Header["Pragma"]) > 0 {
		delete(o.Header, "Cache-Control")
	}
	for _, name := range []string{"Transfer-Encoding", "Trailer", "Content-Length"} {
		delete(o.Header, name)
		delete(o.Trailer, name)
	}
	maps.DeleteFunc(o.Trailer, func(name string, values []string) bool {
		return values == nil || strings.EqualFold(name, "Host") || name == "Connection" || name == "Upgrade"
	})
	if len(o.Trailer) == 0 {
		o.Trailer = nil
	}
	if len(o.Header) == 0 {
		o.Header = nil
	}
}

var pieces = strings.Split(crlf(strings.Join([]string{
	"HTTP/1.1 200 OK\n", "HTTP/1.1 200\n", "HTTP/1.0 200 OK\n", "HTTP/1.1 204 No Content\n", "HTTP/1.1 304 Not Modified\n", "HTTP/1.1 103 Early Hints\n",
	"HTTP/1.1 100 Continue\n", "HTTP/1.1 101 Switching Protocols\n", "HTTP/1.1 500 a b c\n", "HTTP/1.2 200 OK\n", "HTTP/1.1  200 OK\n", "HTTP/1.1 20\n",
	"Content-Length: 5\n", "Content-Length: 0\n", "content-length:11\t\n", "Content-Length: 5, 5\n", "Content-Length: -1\n", "Content-Length : 5\n", "Content-Length:\n",
	"Transfer-Encoding: chunked\n", "transfer-encoding: CHUNKED\n", "Transfer-Encoding: gzip\n", "Transfer-Encoding: gzip, chunked\n",
	"Connection: close\n", "Connection: keep-alive, x\n", "Trailer: X-T\n", "Trailer: Content-Length\n", "Keep-Alive: timeout=5\n", "Pragma: no-cache\n",
	"X: y\n", "x-y-z: \n", "Set-Cookie: a\n", "Set-Cookie: b\n", "X Y: z\n", ": z\n", " folded\n", "\tfolded: x\n", "X: a\rb\n", "X: \x00\n", "X: \xe9\n", "nothing\n",
	"\n", "\n", "\n", "hello", " world", "5\nhello\n", "5;a=b\nhello\n", "5 \nhello\n", "b\nhello world\n", "0\n", "00\n", "0\n\n", "0\nX-T: u\n\n", "fffffffffffffffff\n",
	"-1\n", "0x5\nhello\n", "5\nhellox\n", "5\n", "g\n", "\r", "x",
}, "\x01")), "\x01")

// random makes a response of pieces, well-formed as often as not, and breaks a
// byte now and then.
func randomResponse(random *rand.Rand) []byte {
	pick := func(from, to int) string { return pieces[from+random.IntN(to-from)] }
	var b bytes.Buffer
	if random.IntN(4) == 0 {
		for range random.IntN(12) {
			b.WriteString(pick(0, len(pieces)))
		}
	} else {
		for random.IntN(6) == 0 {
			b.WriteString(crlf("HTTP/1.1 103 Early Hints\nLink: x\n\n"))
		}
		b.WriteString(pick(0, 9))
		for range random.IntN(4) {
			b.WriteString(pick(23, 33))
		}
		switch random.IntN(4) {
		case 0:
			b.WriteString(crlf("Transfer-Encoding: chunked\n\n"))
			for range random.IntN(4) {
				b.WriteString(pick(46, 50))
			}
			b.WriteString(pick(50, 54))
		case 1:
			b.WriteString(crlf("Content-Length: 5\n\nhello"))
		case 2:
			b.WriteString(crlf("\nhello world"))
		default:
			b.WriteString(pick(12, 41) + crlf("\n") + pick(44, len(pieces)))
		}
	}
	text := b.Bytes()
	for len(text) > 0 && random.IntN(3) == 0 {
		switch i := random.IntN(len(text)); random.IntN(3) {
		case 0:
			text[i] = " \t\r\n\x00:;,x0\xff"[random.IntN(11)]
		case 1:
			text = append(text[:i], text[i+1:]...)
		default:
			text = append(text[:i:i], append([]byte{" \t\r\n0"[random.IntN(5)]}, text[i:]...)...)
		}
	}
	return text
}

var methods = []string{"GET", "HEAD", "POST"}

// found are responses of which http1 and net/http once made different things.
var found = []struct{ method, response string }{
	{"HEAD", "HTTP/1.1 500 a b c\nTrailer: Content-Length\nTransfer-Encoding: chunked\n\n"},
	{"GET", "HTTP/1.1 200\nTrailer: X-T\nTransfer-Encoding: chunked\n\nb\nhello world\n5 ;a=b\nhello\n0\nX-T: u\n\n"},
	{"GET", "HTTP/1.1 100 Continue\nTransfer-Encoding: gzip\n\nHTTP/1.1 304 Not Modified\n\n"},
	{"GET", "HTTP/1.1 103 Early Hints\nContent-Length: 1\nContent-Length: 2\n\nHTTP/1.1 200 OK\nContent-Length: 0\n\n"},
	{"POST", "HTTP/1.1 200\nConnection: close\nx-y-z: \nTransfer-Encoding: chunked\n\nb\nhello world\n0\n\n"},
}

func TestFoundDifferences(t *testing.T) {
	for seed, f := range found {
		differ(t, []byte(crlf(f.response)), f.method, rand.New(rand.NewPCG(uint64(seed), 4)))
	}
}

// TestDifferential is short here; HTTP1_SEEDS=1000000 makes it long.
func TestDifferential(t *testing.T) {
	seeds := 20_000
	if n := atoi(os.Getenv("HTTP1_SEEDS")); n > 0 {
		seeds = n
	}
	accepted := 0
	for seed := range seeds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		text := randomResponse(random)
		method := methods[random.IntN(len(methods))]
		differ(t, text, method, random)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		if ours(text, method, random).err == nil {
			accepted++
		}
	}
	t.Logf("%d of %d taken", accepted, seeds)
	if accepted < seeds/10 {
		t.Errorf("only %d of %d responses are well-formed", accepted, seeds)
	}
}

func FuzzDifferential(f *testing.F) {
	for seed := range 40 {
		f.Add(randomResponse(rand.New(rand.NewPCG(uint64(seed), 2))), uint8(seed), uint64(seed))
	}
	for seed, one := range found {
		f.Add([]byte(crlf(one.response)), uint8(slices.Index(methods, one.method)), uint64(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte, method uint8, seed uint64) {
		differ(t, text, methods[int(method)%len(methods)], rand.New(rand.NewPCG(seed, 3)))
	})
}
