package embedtest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
)

// An upstream is the upstream of the route that the checks use.
type upstream struct {
	*httptest.Server
	asked atomic.Int64  // requests so far
	next  chan struct{} // continues /events
}

func startUpstream(t *testing.T) *upstream {
	u := &upstream{next: make(chan struct{})}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

// ServeHTTP answers by the path, and by default with the request target.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.asked.Add(1)
	what, how, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch what {
	case "echo":
		u.echo(w, r)
	case "method":
		io.WriteString(w, r.Method)
	case "status":
		status, _ := strconv.Atoi(how)
		w.Header()["Content-Type"] = nil
		w.WriteHeader(status)
	case "hints":
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
	case "truncated":
		truncate(w, how)
	case "flushed":
		io.WriteString(w, "hello, ")
		w.(http.Flusher).Flush()
		io.WriteString(w, "world")
	case "events":
		u.events(w, r)
	default:
		io.WriteString(w, r.RequestURI)
	}
}

func (u *upstream) echo(w http.ResponseWriter, r *http.Request) {
	socket, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer socket.CloseNow()
	for {
		kind, message, err := socket.Read(r.Context())
		if err != nil || socket.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func (u *upstream) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 3 {
		fmt.Fprintf(w, "data: %d\n", i)
		w.(http.Flusher).Flush()
		select {
		case <-u.next:
		case <-r.Context().Done():
			return
		}
	}
}

// truncate breaks off in the middle of a body.
func truncate(w http.ResponseWriter, how string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	switch how {
	case "length":
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
	case "chunked":
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	case "long":
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n"+strings.Repeat("x", 100_000)+"\r\n")
	}
}
