package slipswitch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/internal/headers"
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

// upgradeProtocol returns the protocol to which a request asks to change and
// may, in lower case; "" if there is none. Other offers are ignored: whoever
// makes one must be prepared for that (RFC 9110 §7.8).
func upgradeProtocol(r *http.Request, route *Route) string {
	if r.ProtoMajor != 1 || !headers.HasToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	offers := r.Header["Upgrade"]
	if headers.HasToken(offers, "websocket") {
		return "websocket"
	}
	if len(offers) == 1 {
		for _, protocol := range route.Protocols {
			if headers.EqualFold(offers[0], protocol) {
				return protocol
			}
		}
	}
	return ""
}

// protocol returns the protocol that is asked for as the client has spelt it, but
// for WebSocket, which some peers know in lower case only.
func (x *exchange) protocol() string {
	if x.upgrade == "websocket" {
		return x.upgrade
	}
	return x.offers[0]
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
	for offer := range headers.Tokens(header["Upgrade"]) {
		if !headers.EqualFold(offer, "h2c") { // a client waits for the 101 before it speaks that
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
	at := x.seat()
	if err := p.take(at, &p.seats.handshakes, &p.seats.tunnels); err != nil {
		p.fail(w, r, err)
		return
	}
	opened, seated := false, true
	defer func() {
		if seated && !opened {
			p.leave(at, &p.seats.tunnels)
		}
	}()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	c, a, err := p.shakeHands(ctx, cancel, r, x, at)
	defer func() {
		if !opened && c != nil {
			c.lease.End()
		}
	}()
	if err != nil {
		p.fail(w, r, err)
		return
	}
	defer a.body.Close()
	if a.status != http.StatusSwitchingProtocols {
		seated = false
		p.leave(at, &p.seats.tunnels)
		p.respond(p.responseWriter(w, r, x), r, x, c, a)
		return
	}
	if err := a.verify(r, x); err != nil {
		p.fail(w, r, err)
		return
	}
	p.incoming(a.header, x, c)
	opened = p.open(w, r, x, c, a)
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
	case x.match.options().SameOrigin && !x.client.isOrigin(x.origin):
		return &Error{Status: http.StatusForbidden, Reason: "the page that asks is of another host"}
	case x.upgrade != "websocket":
		return nil
	case r.Method != http.MethodGet:
		return badUpgrade("a method other than GET")
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

// open takes over the client's connection, answers it, and lets the tunnel run
// by itself: neither the request nor the server's buffers are kept. It reports
// whether there is a tunnel.
func (p *Proxy) open(w http.ResponseWriter, r *http.Request, x *exchange, c *candidates, a *reply) (opened bool) {
	t := &Tunnel{
		lease:    c.lease,
		proxy:    p,
		match:    x.match.Key(),
		version:  x.match.Version,
		client:   x.client.String(),
		peer:     x.client.peer(),
		seat:     x.seat(),
		upstream: c.target.String(),
		listed:   x.match.leaf.listed(c.target),
		opened:   time.Now(),
	}
	if p.TunnelValue != nil {
		t.value = p.TunnelValue(r)
	}
	if !p.tunnels.enter(t) {
		p.fail(w, r, shuttingDown())
		return false
	}
	t.place = x.match.leaf.enter(p.Router, t)
	defer func() {
		if !opened {
			t.place.leave(p.Router, t)
			p.tunnels.leave(t)
		}
	}()
	head := switchHead(w.Header(), a.header, x.protocol())
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.fail(w, r, &Error{Status: http.StatusNotImplemented, Reason: "upgrades are not possible here", Err: err})
		return false
	}
	defer func() {
		if !opened { // the client has left, or what wraps its connection panics
			client.Close()
		}
	}()
	client.SetDeadline(time.Now().Add(defaultHandshakeTimeout))
	if _, err := client.Write(head); err != nil {
		return false
	}
	client.SetDeadline(time.Time{})
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	upstream, first, err := a.http1.Hijack()
	if err != nil {
		return false
	}
	route := x.match.options()
	opened = true
	t.run(splice.Config{
		Client: client, Upstream: upstream,
		FromClient: early, FromUpstream: first,
		Opaque:       x.opaque,
		ActivitySize: route.ActivitySize,
		IdleTimeout:  route.IdleTimeout,
		PingEvery:    route.PingEvery,
		AckTimeout:   route.AckTimeout,
		StallTimeout: route.stallTimeout(),
		LifeTimeout:  route.LifeTimeout,
	})
	return true
}

// switchHead returns the 101 for the client: the upstream's, with what
// Middleware has added.
func switchHead(added, upstream http.Header, protocol string) []byte {
	headers.RemoveHopByHop(upstream)
	for name, values := range added {
		if !headers.IsHopByHop(name) {
			upstream[name] = append(upstream[name], values...)
		}
	}
	delete(upstream, "Content-Length") // a 101 has no body (RFC 9110 §8.6)
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n")
	spell(upstream)
	upstream.Write(&b)
	b.WriteString("\r\n")
	return []byte(b.String())
}
