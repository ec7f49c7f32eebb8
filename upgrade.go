package slipswitch

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// An upgrade goes
//
//	client            gateway           upstream
//	  │ GET, Upgrade     │                  │
//	  │ ────────────────▶│ validate, dial   │
//	  │ (frames, early)  │ GET, Upgrade     │
//	  │                  │ ────────────────▶│
//	  │                  │◀──────────────── │ 101 (and frames)
//	  │                  │ verify, hijack   │
//	  │◀──────────────── │                  │
//	  │ 101              │                  │
//	  └──── tunnel ──────┴───── tunnel ─────┘
//
// The upstream is asked before the client's connection is taken over, so that
// its refusal is an ordinary response.

const (
	maxInterim         = 8        // responses before the final one
	maxHandshakeHeader = 64 << 10 // bytes of all of them
)

// upgradeProtocol returns the protocol to which a request asks to change and
// may, in lower case; "" if there is none. Other offers are ignored: whoever
// makes one must be prepared for that (RFC 9110 §7.8).
func upgradeProtocol(r *http.Request, route *Route) string {
	if r.ProtoMajor != 1 || !hasToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	offers := r.Header["Upgrade"]
	if hasToken(offers, "websocket") {
		return "websocket"
	}
	if len(offers) == 1 {
		for _, protocol := range route.Protocols {
			if equalFold(offers[0], protocol) {
				return protocol
			}
		}
	}
	return ""
}

// hasParameter reports whether a query has a parameter, such as "a=1"; the empty
// one is in none.
func hasParameter(query, parameter string) bool {
	for p := range strings.SplitSeq(query, "&") {
		if p != "" && p == parameter {
			return true
		}
	}
	return false
}

// offersUpgrade reports whether a client may have sent something else than
// HTTP behind its request.
func offersUpgrade(header http.Header) bool {
	for offer := range tokens(header["Upgrade"]) {
		if !equalFold(offer, "h2c") { // a client waits for the 101 before it speaks that
			return true
		}
	}
	return false
}

// upgrade opens a tunnel, or answers why not.
func (p *Proxy) upgrade(w http.ResponseWriter, r *http.Request, x *exchange) {
	if err := p.mayUpgrade(w, r, x); err != nil {
		p.fail(w, r, err)
		return
	}
	at := seatOf(x.match.leaf.place.key, r.Header.Get("X-Real-Ip"))
	if err := p.seats.take(&p.Limits, at); err != nil {
		p.fail(w, r, err)
		return
	}
	var h *handshake
	defer func() { p.seats.shaken(at, h != nil && h.opened) }()
	h, err := p.shakeHands(r, x)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	defer h.release()
	if h.response.StatusCode != http.StatusSwitchingProtocols {
		p.incoming(h.response.Header, r, x, h.choice)
		h.relay(p.responseWriter(w, r, x))
		return
	}
	if err := h.verify(r, x); err != nil {
		p.fail(w, r, err)
		return
	}
	p.incoming(h.response.Header, r, x, h.choice)
	p.open(w, r, x, h)
}

// mayUpgrade checks all that can be checked without the upstream.
func (p *Proxy) mayUpgrade(w http.ResponseWriter, r *http.Request, x *exchange) error {
	switch {
	case !canHijack(w):
		return &Error{Status: http.StatusNotImplemented, Reason: "upgrades are not possible here",
			Err: fmt.Errorf("%T and what it wraps is no http.Hijacker: mount the Proxy outside of the handler that wraps it", w)}
	case p.tunnels.closed():
		return shuttingDown()
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return badUpgrade("a body")
	case !r.ProtoAtLeast(1, 1):
		return badUpgrade("HTTP/1.0")
	case x.match.Route.SameOrigin && !isSameOrigin(r):
		return &Error{Status: http.StatusForbidden, Reason: "the page that asks is of another host"}
	case x.upgrade != "websocket":
		return nil
	case r.Method != http.MethodGet:
		return badUpgrade("a method other than GET")
	case len(x.offers) != 1 || !equalFold(x.offers[0], "websocket"):
		return badUpgrade("more than one Upgrade")
	case len(r.Header["Sec-Websocket-Version"]) > 1:
		return badUpgrade("more than one Sec-WebSocket-Version")
	case r.Header.Get("Sec-Websocket-Version") != "13":
		return &Error{Status: http.StatusUpgradeRequired, Reason: "only version 13 of the WebSocket protocol is spoken here"}
	case len(r.Header["Sec-Websocket-Key"]) != 1:
		return badUpgrade("not exactly one Sec-WebSocket-Key")
	}
	if key, err := base64.StdEncoding.Strict().DecodeString(r.Header["Sec-Websocket-Key"][0]); err != nil || len(key) != 16 {
		return badUpgrade("a Sec-WebSocket-Key that is not 16 bytes in base64")
	}
	return nil
}

func badUpgrade(with string) *Error {
	return &Error{Status: http.StatusBadRequest, Reason: "not a valid upgrade", Err: errors.New("it has " + with)}
}

func shuttingDown() *Error {
	return &Error{Status: http.StatusServiceUnavailable, Reason: "shutting down", RetryAfter: time.Second}
}

// canHijack reports whether a writer can be hijacked, which is for the innermost
// one to say: those that frameworks wrap around it have a Hijack in any case,
// and some panic there.
func canHijack(w http.ResponseWriter) bool {
	_, ok := innermost(w).(http.Hijacker)
	return ok
}

// A handshake is a connection to an upstream that has answered.
type handshake struct {
	target   *target
	choice   *choice
	conn     net.Conn
	limit    io.LimitedReader // of what reader may read from conn
	reader   *bufio.Reader
	response *http.Response
	opened   bool // the connection belongs to a tunnel now
}

var readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// release gives back the reader, and resets the connection unless a tunnel has
// it: after a FIN its port would be blocked for a minute, and tabs of stopped
// workspaces retry for ever.
func (h *handshake) release() {
	h.reader.Reset(nil)
	readers.Put(h.reader)
	if !h.opened {
		h.choice.end()
		reset(h.conn)
	}
}

func reset(conn net.Conn) {
	under := conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		under = secure.NetConn()
	}
	if tcp, ok := under.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	under.Close()
}

// shakeHands asks the first upstream that can be reached, and returns its
// final answer.
func (p *Proxy) shakeHands(r *http.Request, x *exchange) (*handshake, error) {
	route := x.match.Route
	targets, err := p.leads(r.Context(), x.match)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(p.dialContext(r.Context(), x.match), route.handshakeTimeout())
	defer cancel()
	c := p.picker.among(x.match.leaf, targets, p.stuck(r.Header, x, targets))
	h, err := tryEach(c, func(t *target) (*handshake, error) {
		conn, err := p.dialer.dialTarget(ctx, t, route.TLSProfile)
		if err != nil {
			return nil, err
		}
		return &handshake{target: t, conn: conn, choice: c}, nil
	})
	if err != nil {
		c.end()
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
		h.release()
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
	host := x.match.Route.upstreamHost(r.Host)
	w := bufio.NewWriter(h.conn)
	fmt.Fprintf(w, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", r.Method, target, host, x.upgrade)
	header := r.Header.Clone()
	x.match.Route.outgoing(header, nil)
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

// relay passes on an upstream's refusal.
func (h *handshake) relay(w *responseWriter) {
	defer w.end()
	h.limit.N = math.MaxInt64
	h.conn.SetReadDeadline(time.Now().Add(defaultHandshakeTimeout))
	removeHopByHop(h.response.Header)
	header := w.Header()
	for name, values := range h.response.Header {
		header[name] = append(header[name], values...)
	}
	w.WriteHeader(h.response.StatusCode)
	if _, err := io.Copy(w, h.response.Body); err != nil {
		cut(w)
		panic(http.ErrAbortHandler) // or the client would take a part for the whole
	}
}

// verify checks a 101 against what the client has offered (RFC 6455 §4.1).
func (h *handshake) verify(r *http.Request, x *exchange) error {
	header := h.response.Header
	switch {
	case h.response.Proto != "HTTP/1.1":
		return badSwitch("version")
	case !hasToken(header["Connection"], "upgrade") || len(header["Upgrade"]) != 1 || !equalFold(header["Upgrade"][0], x.upgrade):
		return badSwitch("Upgrade or Connection")
	case x.upgrade != "websocket":
		return nil
	case !slices.Equal(header["Sec-Websocket-Accept"], []string{acceptKey(r.Header["Sec-Websocket-Key"][0])}):
		return badSwitch("Sec-WebSocket-Accept")
	}
	offered := slices.Collect(tokens(r.Header["Sec-Websocket-Protocol"]))
	if chosen := header["Sec-Websocket-Protocol"]; len(chosen) > 1 || len(chosen) == 1 && !slices.Contains(offered, chosen[0]) {
		return badSwitch("Sec-WebSocket-Protocol")
	}
	extensions := make(map[string]bool)
	for extension := range tokens(r.Header["Sec-Websocket-Extensions"]) {
		extensions[extensionName(extension)] = true
	}
	for extension := range tokens(header["Sec-Websocket-Extensions"]) {
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

// open takes over the client's connection, answers it, and lets the tunnel run
// by itself: neither the request nor the server's buffers are kept.
func (p *Proxy) open(w http.ResponseWriter, r *http.Request, x *exchange, h *handshake) {
	t := &Tunnel{
		choice:   h.choice.kept(),
		proxy:    p,
		match:    x.match.Route.Key(),
		version:  x.match.Version,
		client:   r.Header.Get("X-Real-Ip"),
		upstream: h.target.String(),
		listed:   x.match.leaf.lists(h.target),
	}
	if p.TunnelValue != nil {
		t.value = p.TunnelValue(r)
	}
	if !p.tunnels.reserve() {
		p.fail(w, r, shuttingDown())
		return
	}
	defer func() {
		if !h.opened {
			p.tunnels.forgo()
		}
	}()
	head := switchHead(w.Header(), h.response.Header, x.upgrade)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.fail(w, r, &Error{Status: http.StatusNotImplemented, Reason: "upgrades are not possible here", Err: err})
		return
	}
	conn.SetDeadline(time.Now().Add(defaultHandshakeTimeout))
	if _, err := conn.Write(head); err != nil {
		conn.Close() // the client has left
		return
	}
	conn.SetDeadline(time.Time{})
	h.conn.SetDeadline(time.Time{})
	h.opened = true
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	first, _ := h.reader.Peek(h.reader.Buffered())
	route := x.match.Route
	t.run(x.match.leaf, splice.Config{
		Client: conn, Upstream: h.conn,
		FromClient: early, FromUpstream: first,
		Opaque:       x.opaque,
		ActivitySize: route.ActivitySize,
		IdleTimeout:  route.IdleTimeout,
		PingEvery:    route.PingEvery,
		StallTimeout: route.stallTimeout(),
		LifeTimeout:  route.LifeTimeout,
	})
}

// switchHead returns the 101 for the client: the upstream's, with what
// Middleware has added.
func switchHead(added, upstream http.Header, protocol string) []byte {
	removeHopByHop(upstream)
	for name, values := range added {
		if !isHopByHop(name) {
			upstream[name] = append(upstream[name], values...)
		}
	}
	delete(upstream, "Content-Length") // a 101 has no body (RFC 9110 §8.6)
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n")
	upstream.Write(&b)
	b.WriteString("\r\n")
	return []byte(b.String())
}
