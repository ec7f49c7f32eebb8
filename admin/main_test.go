package admin_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/admin"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // for all without a logger of their own
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "leaked goroutines:", err)
			code = 1
		}
		// A closed connection may wait for the last poll.
		after := descriptors()
		for deadline := time.Now().Add(5 * time.Second); after > before && time.Now().Before(deadline); after = descriptors() {
			time.Sleep(10 * time.Millisecond)
		}
		if after > before {
			fmt.Fprintf(os.Stderr, "leaked descriptors: %d before, %d after\n", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

// descriptors counts the open sockets of this process, where it can.
func descriptors() (n int) {
	open, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range open {
		if target, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// until waits for a state.
func until(t testing.TB, what string, state func() bool) {
	t.Helper()
	tick, late := time.NewTicker(time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for !state() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

const token = "s3cret"

// A server is a Handler on a real socket, and a client that knows the token.
type server struct {
	t *testing.T
	*httptest.Server
	router *slipswitch.Router
}

// serve starts h, with a router and the token unless it has them.
func serve(t *testing.T, h *admin.Handler) *server {
	t.Helper()
	if h.Router == nil {
		h.Router = new(slipswitch.Router)
	}
	if h.Token == "" && !h.Open {
		h.Token = token
	}
	s := &server{t, httptest.NewServer(h), h.Router}
	t.Cleanup(s.Close)
	return s
}

// An answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
	closes bool // the connection ends with it
}

// do sends a request. Header lines are "Name: value"; without any the body is
// said to be JSON and the token is named.
func (s *server) do(method, target, body string, header ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "token "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case name == "Host":
			r.Host = value
		case value == "":
			r.Header.Del(name)
		default:
			r.Header.Set(name, value)
		}
	}
	response, err := s.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(got), response.Close}
}

// want sends a request as do does, and fails the test if the status of the
// answer is another one.
func (s *server) want(status int, method, target, body string, header ...string) answer {
	s.t.Helper()
	got := s.do(method, target, body, header...)
	if got.status != status {
		s.t.Fatalf("%s %s %.200s: got %d %s; want %d", method, target, body, got.status, got.body, status)
	}
	return got
}

// raw sends bytes and reads one answer, without an end of the request.
func (s *server) raw(request string) answer {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatalf("no answer to %.100q: %v", request, err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body), response.Close}
}

// head is the beginning of a raw request.
func head(requestLine string, header ...string) string {
	return requestLine + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(header, "\r\n") + "\r\n\r\n"
}

// decode reads the answer's body.
func decode[V any](t *testing.T, a answer) (value V) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &value); err != nil {
		t.Fatalf("answer %d %q: %v", a.status, a.body, err)
	}
	return value
}

// put puts routes of an owner.
func put(t *testing.T, router *slipswitch.Router, owner string, routes ...slipswitch.Route) {
	t.Helper()
	_, err := router.Update(func(tx *slipswitch.Txn) error {
		for _, r := range routes {
			if r.Upstreams == nil {
				r.Upstreams = slipswitch.To("http://127.0.0.1:9")
			}
			tx.As(&slipswitch.Owner{Name: owner}).Put(r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

type routeItem struct {
	Route      slipswitch.Route
	Owner      string
	Shadowed   bool
	Version    uint64
	LastActive time.Time
	Tunnels    int
	Ejected    []slipswitch.Ejection
}

type routePage struct {
	Version uint64
	Routes  []routeItem
	Next    string
}

type problem struct {
	Status  int
	Error   string
	Invalid []slipswitch.RouteError
}
