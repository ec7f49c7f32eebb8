package slipswitch_test

import (
	"encoding/binary"
	"io"
	"time"
)

// A frame is a WebSocket frame as it was on the wire, its payload unmasked.
type frame struct {
	opcode  byte
	final   bool
	masked  bool
	payload string
}

// frame reads one frame of less than 64 KiB.
func (p *peer) frame() (f frame, err error) {
	p.SetReadDeadline(time.Now().Add(wait))
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:2]); err != nil {
		return f, err
	}
	f.final, f.opcode, f.masked = head[0]&0x80 != 0, head[0]&0x0f, head[1]&0x80 != 0
	length := int(head[1] & 0x7f)
	if length == 126 {
		if _, err := io.ReadFull(p.r, head[2:]); err != nil {
			return f, err
		}
		length = int(binary.BigEndian.Uint16(head[2:]))
	}
	var key [4]byte
	if f.masked {
		if _, err := io.ReadFull(p.r, key[:]); err != nil {
			return f, err
		}
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(p.r, payload); err != nil {
		return f, err
	}
	for i := range payload {
		payload[i] ^= key[i&3]
	}
	f.payload = string(payload)
	return f, nil
}

// text returns a frame of text, from a client masked with zeros.
func text(fromClient bool, payload string) string { return wsFrame(0x81, fromClient, payload) }

func wsFrame(first byte, fromClient bool, payload string) string {
	head := []byte{first, byte(len(payload))}
	if len(payload) > 125 {
		head = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(len(payload)))
	}
	if fromClient {
		head[1] |= 0x80
		head = append(head, 0, 0, 0, 0)
	}
	return string(head) + payload
}

func closeFrame(fromClient bool, code uint16, reason string) string {
	return wsFrame(0x88, fromClient, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// told wants a Close frame next, answers it, and wants the end behind it.
func (p *peer) told(fromGatewayTo string, code uint16, reason string) {
	p.t.Helper()
	upstream := fromGatewayTo == "upstream"
	f, err := p.frame()
	if want := string(binary.BigEndian.AppendUint16(nil, code)) + reason; err != nil || f.opcode != 8 || f.payload != want || f.masked != upstream {
		p.t.Errorf("the %s got %+v, %v; want a Close frame %d %q", fromGatewayTo, f, err, code, reason)
		return
	}
	p.send(closeFrame(!upstream, code, ""))
	p.CloseWrite()
	p.expectEOF()
}

// both wants both ends of a tunnel to be told.
func both(client, far *peer, code uint16, reason string) {
	client.t.Helper()
	client.told("client", code, reason)
	far.told("upstream", code, reason)
}

// carries wants a tunnel to carry messages both ways.
func carries(client, far *peer) {
	client.t.Helper()
	client.send(text(true, "ping"))
	far.expect(text(true, "ping"))
	far.send(text(false, "pong"))
	client.expect(text(false, "pong"))
}
