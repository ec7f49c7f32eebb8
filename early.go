package slipswitch

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slipswitch/slipswitch/internal/descriptor"
	"github.com/slipswitch/slipswitch/internal/headers"
	"github.com/slipswitch/slipswitch/internal/linger"
)

// An HTTP/1 client may be answered before it has sent all: its body, or the
// frames that it sends without waiting for a 101. A server that closes a
// connection with unread input resets it, which takes the answer back; one that
// reads on is at the client's mercy. So the connection ends in stages (RFC 9112
// §9.6):
//
//  1. the answer says Connection: close, unless all that is left is a short
//     body that has come with the head,
//  2. nothing more is read for the upstream,
//  3. the gateway takes over the connection, ends the answer and its own half,
//  4. and reads, and drops, what comes until the client closes, within bounds. If
//     it does so for too many already, it closes at once.
//
// net/http would read up to 256 KiB before it lets the answer go, and close
// within half a second after it.
const (
	settleTimeout = 20 * time.Millisecond // for a short body to come with its head
	settleBytes   = 256 << 10
	dropTimeout   = 5 * time.Second // between two reads
	dropLife      = 30 * time.Second
	dropBytes     = 256 << 20
	maxDropping   = 1024 // connections at a time, or a 16th of the descriptors that there may be
)

// dropLimit returns for how many connections input may be dropped at a time.
func dropLimit() int {
	if all, ok := descriptor.Limit(); ok {
		return min(maxDropping, max(1, all/16))
	}
	return maxDropping
}

// A clientBody is the body of a request, as the client sends it. Nobody may be
// reading it any more when the handler returns: the server would wait for ever
// for a read that reaches the end meanwhile.
type clientBody struct {
	io.ReadCloser
	eof   atomic.Bool
	taken atomic.Bool // part of it has been read, or is an upstream's to read

	mu   sync.Mutex // held by a read
	left bool
	err  error
}

func (b *clientBody) Read(p []byte) (int, error) {
	b.taken.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	switch err {
	case nil:
	case io.EOF:
		b.eof.Store(true)
	default:
		b.err = err
	}
	return n, err
}

func (b *clientBody) unread() bool { return b != nil && !b.eof.Load() }

// take keeps settle away from a body that an upstream may read on.
func (b *clientBody) take() {
	if b != nil {
		b.taken.Store(true)
	}
}

// fault returns what is wrong with what the client has sent.
func (b *clientBody) fault() error {
	if b == nil || !b.mu.TryLock() {
		return nil // a read that goes on has not failed
	}
	defer b.mu.Unlock()
	return b.err
}

// settle reads a short body that nobody has begun to read, if it has come with
// its head: then the connection can go on.
func (b *clientBody) settle(controller *http.ResponseController) {
	if b.taken.Load() || !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	if controller.SetReadDeadline(time.Now().Add(settleTimeout)) != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, b.ReadCloser, settleBytes+1); err == io.EOF {
		b.eof.Store(true)
		controller.SetReadDeadline(time.Time{})
	}
}

// An earlyWriter is the writer for an HTTP/1 request whose connection may have to
// end with the answer. It stands below Middleware, which may answer, too.
type earlyWriter struct {
	http.ResponseWriter
	proxy      *Proxy
	request    *http.Request
	controller *http.ResponseController // of the server's writer
	body       *clientBody              // nil: none
	frames     bool                     // something else than HTTP may follow the request
	last       bool                     // the connection ends with this request in any case
	status     int                      // 0: the final header is not written
	chunked    bool
	announced  []string // trailers
	sized      bool
	whole      bool // the answer is
	taken      bool // the connection is hijacked
}

// early returns the writer for a request, and for its body a wrapper, nil if it
// has none. The writer is nil if the connection may go on in any case.
func (p *Proxy) early(w http.ResponseWriter, r *http.Request) (*earlyWriter, *clientBody) {
	var body *clientBody
	if r.Body != nil && r.Body != http.NoBody {
		body = &clientBody{ReadCloser: r.Body}
	}
	e := &earlyWriter{ResponseWriter: w, proxy: p, request: r, controller: http.NewResponseController(w), body: body,
		frames: offersUpgrade(r.Header) || r.Method == http.MethodConnect, last: ambiguous(r)}
	if r.ProtoMajor != 1 || body == nil && !e.frames && !e.last {
		return nil, body
	}
	return e, body
}

// ambiguous reports whether a request's framing may be faulty: with a
// Transfer-Encoding there may have been a Content-Length, too, and with HTTP/1.0
// a Transfer-Encoding. Whoever sent that to smuggle a request takes something
// for a part of this one that is the next one here, so there must be none (RFC
// 9112 §6.1). net/http deletes both fields before a handler sees them: all
// requests that may have had them are taken for such.
func ambiguous(r *http.Request) bool {
	return !r.ProtoAtLeast(1, 1) || len(r.TransferEncoding) > 0
}

func (e *earlyWriter) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// ends reports whether the connection ends with the answer.
func (e *earlyWriter) ends() bool { return e.frames || e.last || e.body.unread() }

func (e *earlyWriter) WriteHeader(status int) {
	if status < 200 && !e.request.ProtoAtLeast(1, 1) {
		return // HTTP/1.0 has no interim responses (RFC 9110 §15.2)
	}
	if status >= 200 && e.status == 0 {
		e.status = status
		if e.body.unread() && e.request.Header["Expect"] == nil { // reading would have the server ask for the body
			e.body.settle(e.controller)
		}
		header := e.Header()
		if e.ends() {
			sayClose(header)
		}
		e.announced = header["Trailer"]
		e.sized = header.Get("Content-Length") != "" || e.request.Method == http.MethodHead ||
			status == http.StatusNoContent || status == http.StatusNotModified
		e.chunked = !e.sized && e.request.ProtoAtLeast(1, 1) && header.Get("Transfer-Encoding") != "identity"
	}
	e.ResponseWriter.WriteHeader(status)
}

// sayClose says that the connection ends, and keeps what a 426 says.
func sayClose(header http.Header) {
	said := header["Connection"]
	header["Connection"] = []string{"close"} // the server looks at the first
	if headers.HasToken(said, "upgrade") {
		header.Add("Connection", "upgrade")
	}
}

func (e *earlyWriter) Write(p []byte) (int, error) {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	return e.ResponseWriter.Write(p)
}

// Flush is for Middleware that looks for an http.Flusher.
func (e *earlyWriter) Flush() { e.FlushError() }

func (e *earlyWriter) FlushError() error {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	return flush(e.ResponseWriter)
}

func (e *earlyWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := e.controller.Hijack()
	e.taken = err == nil
	return conn, buffered, err
}

// leave ends all reading of the body. Behind a panic it resets the connection if
// its end would else be the answer's.
func (e *earlyWriter) leave() {
	if e.taken {
		return
	}
	if !e.whole && e.status != 0 && !e.sized && !e.chunked {
		if conn, _, err := e.Hijack(); err == nil {
			reset(conn)
			return
		}
	}
	if e.body == nil {
		return
	}
	if e.body.unread() {
		e.controller.SetReadDeadline(time.Unix(1, 0))
	}
	e.body.mu.Lock()
	e.body.left = true
	e.body.mu.Unlock()
}

// finish ends the connection in stages if something may be left to read. An
// answer that Proxy.ErrorHandler has not written is left to whoever calls the
// Proxy, and its connection to the server.
func (e *earlyWriter) finish() {
	e.whole = true
	if e.taken || !e.frames && !e.body.unread() {
		return
	}
	if e.status == 0 {
		sayClose(e.Header())
		return
	}
	if !canHijack(e.ResponseWriter) {
		return
	}
	e.leave()
	e.controller.SetWriteDeadline(time.Now().Add(dropLife))
	if e.FlushError() != nil {
		return
	}
	conn, _, err := e.Hijack()
	if err != nil {
		return
	}
	conn.SetDeadline(time.Now().Add(dropLife))
	if e.chunked {
		io.WriteString(conn, "0\r\n"+e.trailers()+"\r\n")
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	if !e.proxy.dropping.TryGo(func() error { drop(conn); return nil }) {
		e.proxy.hits.note("dropping")
		conn.Close()
	}
}

// reset closes a connection so that nobody takes that for the end of what was sent.
func reset(conn net.Conn) {
	socket := linger.Socket(conn)
	if tcp, ok := socket.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	socket.Close()
}

// trailers returns the trailer section, as net/http would write it.
func (e *earlyWriter) trailers() string {
	header, trailer := e.Header(), make(http.Header)
	for name := range headers.Tokens(e.announced) {
		name = http.CanonicalHeaderKey(name)
		trailer[name] = header[name]
	}
	for name, values := range header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			trailer[name] = values
		}
	}
	var b strings.Builder
	trailer.Write(&b)
	return b.String()
}

// drop reads until the client closes, within bounds.
func drop(conn net.Conn) {
	defer conn.Close()
	buf := copyBuffers.Get()
	defer copyBuffers.Put(buf)
	end := time.Now().Add(dropLife)
	for left := dropBytes; left > 0; {
		deadline := time.Now().Add(dropTimeout)
		if deadline.After(end) {
			deadline = end
		}
		conn.SetReadDeadline(deadline)
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		left -= n
	}
}
