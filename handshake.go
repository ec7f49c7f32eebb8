package slipswitch

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/slipswitch/slipswitch/internal/headers"
)

// maxHandshakeHeader bounds all headers of the answer to a handshake, in bytes.
const maxHandshakeHeader = 64 << 10

// framing are the fields that are ours to write, whatever Middleware has set.
var framing = map[string]bool{
	"Host": true, "Connection": true, "Upgrade": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true,
}

// shakeHands asks for an upgrade, and returns the answer. It cancels its context if
// there is none within the route's HandshakeTimeout.
func (p *Proxy) shakeHands(ctx context.Context, cancel context.CancelCauseFunc, r *http.Request, x *exchange, at seat) (c *candidates, a *reply, err error) {
	defer p.leave(at, &p.seats.handshakes)
	c, err = p.candidates(ctx, x, r.Header)
	if err != nil {
		return nil, nil, err
	}
	timer := time.AfterFunc(x.match.options().handshakeTimeout(), func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	q := p.request(r, x)
	q.Upgrade, q.HeaderTimeout, q.MaxHeader = x.protocol(), 0, maxHandshakeHeader
	a, err = p.send(ctx, r, x, c, q)
	return c, a, err
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

// verify checks a 101 against what the client has offered (RFC 6455 §4.1).
func (a *reply) verify(r *http.Request, x *exchange) error {
	header := a.header
	switch {
	case a.http1.Minor == 0:
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
