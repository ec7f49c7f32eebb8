package slipswitch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/headers"
)

const (
	maxInterim         = 8        // responses before the final one
	maxHandshakeHeader = 64 << 10 // bytes of all of them
)

// A handshake is a connection to an upstream that has answered.
type handshake struct {
	candidates *candidates
	conn       net.Conn
	limit      io.LimitedReader // of what reader may read from conn
	reader     *bufio.Reader
	parser     *bufio.Reader // of one response's header, and what follows of a refusal
	response   *http.Response
	opened     bool // the connection belongs to a tunnel now
}

var (
	readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriter(nil) }}
)

// release gives back the reader, and parts with the connection unless a tunnel
// has it.
func (h *handshake) release(p *Proxy) {
	for _, r := range []*bufio.Reader{h.reader, h.parser} {
		r.Reset(nil)
		readers.Put(r)
	}
	if !h.opened {
		h.candidates.lease.End()
		p.lingering.Add(h.conn, h.response != nil)
	}
}

// shakeHands asks the first upstream that can be reached, and returns its
// final answer.
func (p *Proxy) shakeHands(r *http.Request, x *exchange, at seat) (*handshake, error) {
	defer p.leave(at, &p.seats.handshakes)
	route := x.match.options()
	candidates, err := p.candidates(r.Context(), x, r.Header)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(p.dialContext(r.Context(), x.match), route.handshakeTimeout())
	defer cancel()
	h, err := try(candidates, func(t *target) (*handshake, error) {
		conn, err := p.dialer.Dial(ctx, t.endpoint(route.TLSProfile, "http/1.1"))
		if err != nil {
			return nil, err
		}
		return &handshake{conn: conn, candidates: candidates}, nil
	})
	if err != nil {
		candidates.lease.End()
		return nil, err
	}
	h.limit = io.LimitedReader{R: h.conn, N: maxHandshakeHeader}
	h.reader, h.parser = readers.Get().(*bufio.Reader), readers.Get().(*bufio.Reader)
	h.reader.Reset(&h.limit)
	watch := context.AfterFunc(ctx, func() { h.conn.SetDeadline(time.Unix(1, 0)) })
	err = h.ask(r, x)
	if !watch() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		h.release(p)
		return nil, err
	}
	return h, nil
}

// framing are the fields that are ours to write, whatever Middleware has set.
var framing = map[string]bool{
	"Host": true, "Connection": true, "Upgrade": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true,
}

// ask writes the request and reads up to the final response.
func (h *handshake) ask(r *http.Request, x *exchange) error {
	target := x.match.forwardPath(h.candidates.target)
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		target += "?" + r.URL.RawQuery
	}
	host := x.match.options().upstreamHost(r.Host)
	w := writers.Get().(*bufio.Writer)
	w.Reset(h.conn)
	defer func() {
		w.Reset(nil)
		writers.Put(w)
	}()
	fmt.Fprintf(w, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", r.Method, target, host, x.protocol())
	header := r.Header.Clone()
	x.match.options().outgoing(header, nil)
	spell(header)
	header.WriteSubset(w, framing)
	w.WriteString("\r\n")
	if err := w.Flush(); err != nil {
		return err
	}
	for range maxInterim + 1 {
		response, err := h.read(r)
		if err != nil {
			if h.limit.N <= 0 {
				err = fmt.Errorf("the upstream's header is longer than %d bytes", maxHandshakeHeader)
			}
			return err
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			h.response = response
			return nil
		}
	}
	return fmt.Errorf("the upstream sent more than %d interim responses", maxInterim)
}

// read reads one response, up to what follows its header.
func (h *handshake) read(r *http.Request) (*http.Response, error) {
	var head []byte
	for begun := false; ; {
		line, err := h.reader.ReadSlice('\n')
		head = append(head, line...)
		if err != nil && err != bufio.ErrBufferFull {
			return nil, err
		}
		whole := err == nil
		if blank := len(bytes.TrimRight(line, "\r\n")) == 0; whole && begun && blank {
			break
		}
		begun = whole
	}
	h.parser.Reset(io.MultiReader(bytes.NewReader(head), h.reader))
	response, err := http.ReadResponse(h.parser, r)
	if err != nil {
		return nil, err
	}
	if response.Close && response.Header["Connection"] == nil { // net/http drops one that says close, with all that it names
		_, fields, _ := bytes.Cut(head, []byte("\n"))
		raw, _ := textproto.NewReader(bufio.NewReader(bytes.NewReader(fields))).ReadMIMEHeader()
		if named := raw["Connection"]; named != nil {
			response.Header["Connection"] = named
		}
	}
	return response, nil
}

// spell spells the fields of a WebSocket handshake as RFC 6455 does: some peers
// compare them so.
func spell(header http.Header) {
	for _, name := range [...]string{"Accept", "Extensions", "Key", "Protocol", "Version"} {
		if values, ok := header["Sec-Websocket-"+name]; ok {
			delete(header, "Sec-Websocket-"+name)
			header["Sec-WebSocket-"+name] = values
		}
	}
}

// until lets what follows the header take as long as ctx does not end.
func (h *handshake) until(ctx context.Context) {
	h.limit.N = math.MaxInt64
	context.AfterFunc(ctx, func() { h.conn.SetDeadline(time.Unix(1, 0)) })
}

// verify checks a 101 against what the client has offered (RFC 6455 §4.1).
func (h *handshake) verify(r *http.Request, x *exchange) error {
	header := h.response.Header
	switch {
	case h.response.Proto != "HTTP/1.1":
		return badSwitch("version")
	case !headers.HasToken(header["Connection"], "upgrade") || len(header["Upgrade"]) != 1 || !headers.EqualFold(header["Upgrade"][0], x.upgrade):
		return badSwitch("Upgrade or Connection")
	case x.upgrade != "websocket":
		return nil
	case !slices.Equal(header["Sec-Websocket-Accept"], []string{acceptKey(r.Header["Sec-Websocket-Key"][0])}):
		return badSwitch("Sec-WebSocket-Accept")
	}
	offered := slices.Collect(headers.Tokens(r.Header["Sec-Websocket-Protocol"]))
	if chosen := header["Sec-Websocket-Protocol"]; len(chosen) > 1 || len(chosen) == 1 && !slices.Contains(offered, chosen[0]) {
		return badSwitch("Sec-WebSocket-Protocol")
	}
	extensions := make(map[string]bool)
	for extension := range headers.Tokens(r.Header["Sec-Websocket-Extensions"]) {
		extensions[extensionName(extension)] = true
	}
	for extension := range headers.Tokens(header["Sec-Websocket-Extensions"]) {
		if !extensions[extensionName(extension)] {
			return badSwitch("Sec-WebSocket-Extensions")
		}
	}
	return nil
}

func badSwitch(field string) *Error {
	return &Error{Status: http.StatusBadGateway, Reason: "the upstream's upgrade is invalid", Err: fmt.Errorf("its %s is wrong", field)}
}

func extensionName(extension string) string {
	name, _, _ := strings.Cut(extension, ";")
	return strings.TrimRight(name, " \t")
}

// acceptKey answers a Sec-WebSocket-Key (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
