package main

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
)

// A stream is what one end of a tunnel sends: WebSocket frames of 1 byte to
// 1 MiB, as many of 1 KiB to 2 KiB as of 512 KiB to 1 MiB. Some are pings, some
// messages are fragmented. All is made from the tunnel's id, so that
// the receiver knows each byte.
type stream struct {
	random           *rand.Rand
	masked           bool
	first, fragments bool
	header, payload  []byte // what is still to come of a frame that is being received
}

// newStream returns that of the client (0) or the upstream (1).
func newStream(id uint64, side int) *stream {
	return &stream{random: rand.New(rand.NewPCG(id, uint64(side))), masked: side == 0, first: true}
}

// noise is what payloads are cut from.
var noise = func() []byte {
	b := make([]byte, 2<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], random.Uint64())
	}
	return b
}()

// frame returns the next frame. The payload must not be changed.
func (s *stream) frame() (header, payload []byte) {
	const final, ping, message, continuation = 0x80, 9, 2, 0
	size := 1 << s.random.IntN(20)
	size += s.random.IntN(size + 1)
	opcode := byte(message)
	if s.fragments {
		opcode = continuation
	}
	switch {
	case s.first:
		size = min(size, 4<<10) // it goes with the handshake
		opcode |= final
	case s.random.IntN(10) == 0:
		size = min(size, 125)
		opcode = ping | final
	default:
		if s.fragments = s.random.IntN(4) == 0; !s.fragments {
			opcode |= final
		}
	}
	s.first = false

	header = append(header, opcode, 0)
	switch {
	case size <= 125:
		header[1] = byte(size)
	case size < 1<<16:
		header[1] = 126
		header = binary.BigEndian.AppendUint16(header, uint16(size))
	default:
		header[1] = 127
		header = binary.BigEndian.AppendUint64(header, uint64(size))
	}
	if s.masked {
		header[1] |= 0x80
		header = binary.BigEndian.AppendUint32(header, s.random.Uint32())
	}
	at := s.random.IntN(len(noise) - size)
	return header, noise[at : at+size]
}

// goesOn reports whether p is what comes next.
func (s *stream) goesOn(p []byte) bool {
	for len(p) > 0 {
		if len(s.header)+len(s.payload) == 0 {
			s.header, s.payload = s.frame()
		}
		part := &s.header
		if len(*part) == 0 {
			part = &s.payload
		}
		n := min(len(p), len(*part))
		if !bytes.Equal(p[:n], (*part)[:n]) {
			return false
		}
		p, *part = p[n:], (*part)[n:]
	}
	return true
}
