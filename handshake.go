package slipswitch

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
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
	target     *target
	candidates *candidates
	conn       net.Conn
	limit      io.LimitedReader // of what reader may read from conn
	reader     *bufio.Reader
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
	h.reader.Reset(nil)
	readers.Put(h.reader)
	if !h.opened {
		h.candidates.end()
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
		conn, err := p.dialer.Dial(ctx, t.poolKey(route.TLSProfile).endpoint(t.addr, "http/1.1"))
		if err != nil {
			return nil, err
		}
		return &handshake{target: t, conn: conn, candidates: candidates}, nil
	})
	if err != nil {
		candidates.end()
		return nil, err
	}
	h.limit = io.LimitedReader{R: h.conn, N: maxHandshakeHeader}
	h.reader = readers.Get().(*bufio.Reader)
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
	target := x.match.forwardPath(h.target)
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
	fmt.Fprintf(w, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", r.Method, target, host, x.upgrade)
	header := r.Header.Clone()
	x.match.options().outgoing(header, nil)
	header.WriteSubset(w, framing)
	w.WriteString("\r\n")
	if err := w.Flush(); err != nil {
		return err
	}
	for range maxInterim + 1 {
		response, err := http.ReadResponse(h.reader, r)
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
