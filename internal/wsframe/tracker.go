// Package wsframe follows the frames of a WebSocket connection (RFC 6455, section
// 5.2) without looking at their contents, and writes the control frames that a
// gateway may add: Close and Ping.
//
// It answers one question about a stream between two other parties: is this byte
// the last of a frame, so that a frame of our own may follow it? Counting
// messages and reading the code of a Close frame cost nothing extra.
package wsframe

import (
	"encoding/binary"
	"unicode/utf8"
)

// The opcodes of RFC 6455, section 5.2.
const (
	Continuation = 0x0
	Text         = 0x1
	Binary       = 0x2
	Close        = 0x8
	Ping         = 0x9
	Pong         = 0xA
)

// MaxControl is the longest payload of a control frame.
const MaxControl = 125

// Header is what the first bytes of a frame say.
type Header struct {
	Opcode byte
	Final  bool // the last frame of its message
	Length uint64
}

// Data reports whether the frame carries a part of a message, as opposed to a ping, a pong or a close.
func (h Header) Data() bool { return h.Opcode < 0x8 }

// Tracker follows one direction of a connection. Its zero value follows what a server sends, from the
// first byte after the handshake. It holds no payload but that of a Close frame.
//
// On a violation of the protocol it gives up for good: from then on it knows no boundary. Reserved bits are
// left to the extensions that own them, and a length may be written longer than it has to be: neither makes a
// boundary doubtful.
type Tracker struct {
	Masked bool // frames must be masked: this is what a client sends

	violated bool
	open     bool   // a message has begun and its final frame has not
	got      uint8  // bytes of an unfinished header in head
	size     uint64 // announced payload of the current message so far
	rest     uint64 // payload bytes of the current frame still to come
	header   Header
	head     [14]byte
	closing  *closing
}

// closing is the payload of a Close frame, as far as it has come.
type closing struct {
	key  [4]byte
	body []byte
	done bool
}

// Next follows p to the end of the current frame, or through all of p when the frame is longer. It returns how
// many bytes that were and whether a frame ended with the last of them. After a violation it returns len(p), false.
func (t *Tracker) Next(p []byte) (n int, ended bool) {
	if t.violated {
		return len(p), false
	}
	if t.rest == 0 {
		var complete bool
		n, complete = t.readHeader(p)
		if t.violated {
			return len(p), false
		}
		if !complete {
			return n, false
		}
		if t.rest == 0 {
			t.endFrame()
			return n, true
		}
	}
	take := min(t.rest, uint64(len(p)-n))
	if t.header.Opcode == Close && !t.closing.done {
		t.closing.body = append(t.closing.body, p[n:n+int(take)]...)
	}
	t.rest -= take
	n += int(take)
	if t.rest == 0 {
		t.endFrame()
		return n, true
	}
	return n, false
}

// Skip follows n bytes of payload that passed unseen; n is at most Rest. It reports whether the frame ended.
// The payload of a Close frame must not be skipped.
func (t *Tracker) Skip(n uint64) (ended bool) {
	if n > t.rest {
		panic("wsframe: skipped past the end of a frame")
	}
	t.rest -= n
	if n > 0 && t.rest == 0 {
		t.endFrame()
		return true
	}
	return false
}

// Rest returns how many bytes of the current frame's payload are still to come.
func (t *Tracker) Rest() uint64 { return t.rest }

// Boundary reports whether the bytes followed so far end between two frames.
func (t *Tracker) Boundary() bool { return !t.violated && t.rest == 0 && t.got == 0 }

// Violated reports whether the stream broke the protocol.
func (t *Tracker) Violated() bool { return t.violated }

// Frame returns the header of the current frame, or between two frames that of the last one.
func (t *Tracker) Frame() Header { return t.header }

// MessageSize returns the payload bytes the current message has announced so far, its current frame included;
// between two messages it is the size of the last one.
func (t *Tracker) MessageSize() uint64 { return t.size }

// Closed returns the code and reason of the Close frame that came by. A frame without a code has code 1005, as in
// RFC 6455, section 7.1.5. The reason is a peer's text: quote it before it meets a terminal or a log.
func (t *Tracker) Closed() (code uint16, reason string, ok bool) {
	if t.closing == nil || !t.closing.done {
		return 0, "", false
	}
	body := t.closing.body
	if len(body) < 2 {
		return 1005, "", true
	}
	return binary.BigEndian.Uint16(body), string(body[2:]), true
}

// readHeader collects a header, which may come a byte at a time, and judges it.
func (t *Tracker) readHeader(p []byte) (n int, complete bool) {
	for n < len(p) {
		want := headerSize(t.head[:t.got])
		take := copy(t.head[t.got:want], p[n:])
		t.got += uint8(take)
		n += take
		if int(t.got) == want && headerSize(t.head[:t.got]) == want {
			t.got = 0
			t.judge()
			return n, true
		}
	}
	return n, false
}

// headerSize returns the length of the header that begins with head, or as much of it as can be known yet.
func headerSize(head []byte) int {
	if len(head) < 2 {
		return 2
	}
	size := 2
	switch head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if head[1]&0x80 != 0 {
		size += 4
	}
	return size
}

// judge takes a whole header in t.head as the current frame.
func (t *Tracker) judge() {
	masked := t.head[1]&0x80 != 0
	h := Header{Opcode: t.head[0] & 0x0f, Final: t.head[0]&0x80 != 0, Length: uint64(t.head[1] & 0x7f)}
	key := t.head[2:6]
	switch h.Length {
	case 126:
		h.Length, key = uint64(binary.BigEndian.Uint16(t.head[2:])), t.head[4:8]
	case 127:
		h.Length, key = binary.BigEndian.Uint64(t.head[2:]), t.head[10:14]
	}
	switch {
	case masked != t.Masked, h.Length > 1<<63-1:
		t.violated = true
		return
	case h.Data():
		if h.Opcode > Binary || (h.Opcode == Continuation) != t.open {
			t.violated = true
			return
		}
		if !t.open {
			t.size = 0
		}
		t.size += h.Length
		t.open = true // until its final frame ends
	case h.Opcode > Pong || !h.Final || t.head[1]&0x7f > MaxControl:
		t.violated = true
		return
	}
	t.header, t.rest = h, h.Length
	if h.Opcode == Close && t.closing == nil { // a second one says nothing new
		t.closing = &closing{body: make([]byte, 0, h.Length)}
		if masked {
			t.closing.key = [4]byte(key)
		}
	}
}

func (t *Tracker) endFrame() {
	switch {
	case t.header.Data():
		if t.header.Final {
			t.open = false
		}
	case t.header.Opcode == Close && !t.closing.done:
		for i := range t.closing.body {
			t.closing.body[i] ^= t.closing.key[i&3]
		}
		t.closing.done = true
	}
}

// AppendClose appends a Close frame to b. The code must be one that may be sent (RFC 6455, section 7.4);
// the reason is cut to the 123 bytes of whole UTF-8 characters that fit. A frame to a server is masked with key,
// which RFC 6455, section 10.3 wants unpredictable; a nil key makes the unmasked frame that goes to a client.
func AppendClose(b []byte, code uint16, reason string, key *[4]byte) []byte {
	reason = cut(reason, MaxControl-2)
	length := byte(2 + len(reason))
	if key == nil {
		b = append(b, 0x80|Close, length)
	} else {
		b = append(b, 0x80|Close, 0x80|length)
		b = append(b, key[:]...)
	}
	begin := len(b)
	b = binary.BigEndian.AppendUint16(b, code)
	b = append(b, reason...)
	if key != nil {
		for i := range b[begin:] {
			b[begin+i] ^= key[i&3]
		}
	}
	return b
}

// AppendPing appends a Ping frame for a client to b. The payload is at most MaxControl bytes.
func AppendPing(b, payload []byte) []byte {
	return append(append(b, 0x80|Ping, byte(len(payload))), payload...)
}

// cut returns the longest beginning of s that is valid UTF-8 and at most limit bytes long.
func cut(s string, limit int) string {
	end := 0
	for end < len(s) {
		r, size := utf8.DecodeRuneInString(s[end:])
		if r == utf8.RuneError && size == 1 || end+size > limit {
			break
		}
		end += size
	}
	return s[:end]
}
