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

// An HTTP/1 client may be answered while it is still sending: its body, or frames
// before it has received the 101. A server that closes a connection with unread
// input resets it, and the client may lose the answer. A server that reads on has
// to read as much as the client likes to send. So the gateway closes the connection
// in stages (RFC 9112 §9.6):
//
//  1. It answers with Connection: close, unless all that is unread is a short body
//     that came with its header.
//  2. It stops reading for the upstream.
//  3. It hijacks the connection, writes the end of the answer, and closes its own
//     half.
//  4. It reads and discards what comes until the client closes, within bounds. If it
//     does this for too many connections already, it closes at once.
//
// net/http would read up to 256 KiB before it sends the answer, and would close half
// a second after it.
const (
	settleTimeout = 20 * time.Millisecond // for a short body that came with its header
	settleBytes   = 256 << 10
	dropTimeout   = 5 * time.Second // between two reads
	dropLife      = 30 * time.Second
	dropBytes     = 256 << 20
	maxDropping   = 1024 // connections at a time, or a 16th of the process's descriptor limit if that is less
)

// dropLimit returns how many connections may be in the last stage at a time.
func dropLimit() int {
	if all, ok := descriptor.Limit(); ok {
		return min(maxDropping, max(1, all/16))
	}
	return maxDropping
}

// A clientBody is the body of a request, as the client sends it. No read of it may
// be in progress when the handler returns: the server would wait forever for a read
// that reaches the end meanwhile.
type clientBody struct {
	io.ReadCloser
	eof   atomic.Bool
	taken atomic.Bool // a part has been read, or an upstream may read on

	mu   sync.Mutex // held during a read
	left bool       // no more may be read
	err  error      // of the last read that failed
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

// take keeps settle from reading a body that an upstream may read on.
func (b *clientBody) take() {
	if b != nil {
		b.taken.Store(true)
	}
}

// fault returns the error of reading from the client, such as a malformed chunk.
func (b *clientBody) fault() error {
	if b == nil || !b.mu.TryLock() {
		return nil // a read in progress has not failed
	}
	defer b.mu.Unlock()
	return b.err
}

// settle reads a short body that came with its header, if nothing of it has been
// read: the connection can then be kept.
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

// An earlyWriter is the ResponseWriter of an HTTP/1 request whose connection may
// have to be closed after the answer. Middleware gets it, too, and may answer.
type earlyWriter struct {
	http.ResponseWriter
	proxy      *Proxy
	request    *http.Request
	controller *http.ResponseController // of the server's writer
	body       *clientBody              // nil means none
	frames     bool                     // something other than HTTP may follow the request
	last       bool                     // the connection is closed after this request in any case
	status     int                      // zero means that the final header is not written
	chunked    bool
	announced  []string // trailers
	sized      bool     // the answer's length is known without its end
	whole      bool     // the handler has returned without a panic
	hijacked   bool
}

// early returns the writer for a request, and a wrapper of its body. The writer is
// nil if the connection can be kept in any case, the wrapper if there is no body.
func (p *Proxy) early(w http.ResponseWriter, r *http.Request) (*earlyWriter, *clientBody) {
	var body *clientBody
	if r.ContentLength != 0 && r.Body != nil { // a server may give a request without a body one to read
		body = &clientBody{ReadCloser: r.Body}
	}
	e := &earlyWriter{ResponseWriter: w, proxy: p, request: r, controller: http.NewResponseController(w), body: body,
		frames: offersUpgrade(r.Header) || r.Method == http.MethodConnect, last: ambiguous(r)}
	if r.ProtoMajor != 1 || body == nil && !e.frames && !e.last {
		return nil, body
	}
	return e, body
}

// ambiguous reports whether a request may have had a Content-Length besides a
// Transfer-Encoding, or a Transfer-Encoding with HTTP/1.0. A client that smuggles
// requests sends these: a server before the gateway may see the end of the body
// elsewhere, and take the next request for a part of this one. So this request must
// be the last of its connection (RFC 9112 §6.1). net/http deletes these fields
// before a handler sees them, so every request that may have had them counts.
func ambiguous(r *http.Request) bool {
	return !r.ProtoAtLeast(1, 1) || len(r.TransferEncoding) > 0
}

func (e *earlyWriter) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// ends reports whether the connection must be closed after the answer.
func (e *earlyWriter) ends() bool { return e.frames || e.last || e.body.unread() }

func (e *earlyWriter) WriteHeader(status int) {
	if status < 200 && !e.request.ProtoAtLeast(1, 1) {
		return // HTTP/1.0 has no interim responses (RFC 9110 §15.2)
	}
	if status >= 200 && e.status == 0 {
		e.status = status
		if e.body.unread() && e.request.Header["Expect"] == nil { // else the server would send a 100 (Continue)
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

// sayClose sets Connection: close, and keeps the upgrade token of a 426.
func sayClose(header http.Header) {
	said := header["Connection"]
	header["Connection"] = []string{"close"} // http.Server reads only the first value
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
	e.hijacked = err == nil
	return conn, buffered, err
}

// leave ends all reads of the body. After a panic it resets the connection if the
// client would take its end for that of the answer.
func (e *earlyWriter) leave() {
	if e.hijacked {
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

// finish closes the connection in stages if something may be left to read. If
// Proxy.ErrorHandler wrote nothing, a handler wrapped around the Proxy answers, and
// the server closes the connection.
func (e *earlyWriter) finish() {
	e.whole = true
	if e.hijacked || !e.frames && !e.body.unread() {
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

// reset resets a connection, so that the client does not take its end for that of
// the answer.
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

// drop reads and discards input until the client closes, within bounds.
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
