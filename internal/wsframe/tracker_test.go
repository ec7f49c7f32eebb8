package wsframe_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/slipswitch/slipswitch/internal/wsframe"
)

// build makes a frame with a length field of the given size: 7, 16 or 64 bits.
func build(first byte, masked bool, bits int, length uint64, payload []byte) []byte {
	b := []byte{first}
	var mask byte
	if masked {
		mask = 0x80
	}
	switch bits {
	case 7:
		b = append(b, mask|byte(length))
	case 16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(length))
	case 64:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), length)
	}
	if masked {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, payload...)
}

// follow feeds p in pieces of the given size and returns where frames ended.
func follow(t *wsframe.Tracker, p []byte, size int) (ends []int) {
	at := 0
	for piece := range slices.Chunk(p, size) {
		for len(piece) > 0 {
			n, ended := t.Next(piece)
			piece, at = piece[n:], at+n
			if ended {
				ends = append(ends, at)
			}
		}
	}
	return ends
}

func TestLengthsByteByByte(t *testing.T) {
	for _, masked := range []bool{false, true} {
		for _, bits := range []int{7, 16, 64} {
			for _, length := range []int{0, 1, 125, 126, 127, 65535, 65536, 100000} {
				if bits == 7 && length > 125 || bits == 16 && length > 65535 {
					continue
				}
				one := build(0x82, masked, bits, uint64(length), make([]byte, length))
				for _, size := range []int{1, 2, 3, 7, 1 << 20} {
					tracker := wsframe.Tracker{Masked: masked}
					got := follow(&tracker, append(bytes.Clone(one), one...), size)
					if want := []int{len(one), 2 * len(one)}; !slices.Equal(got, want) || !tracker.Boundary() {
						t.Errorf("masked %v, %d bits, length %d, by %d: frames end at %v; want %v", masked, bits, length, size, got, want)
					}
					if got := tracker.MessageSize(); got != uint64(length) {
						t.Errorf("message of %d bytes has size %d", length, got)
					}
				}
			}
		}
	}
}

func TestViolations(t *testing.T) {
	text := build(0x01, false, 7, 1, []byte("a"))
	for _, test := range []struct {
		name     string
		masked   bool
		stream   []byte
		violated bool
	}{
		{"plain", false, build(0x81, false, 7, 1, []byte("a")), false},
		{"masked by a server", false, build(0x81, true, 7, 1, []byte("a")), true},
		{"unmasked by a client", true, build(0x81, false, 7, 1, []byte("a")), true},
		{"length with the top bit", false, build(0x82, false, 64, 1<<63, nil), true},
		{"length 2^62", false, build(0x82, false, 64, 1<<62, nil), false},
		{"longer length than needed", false, build(0x82, false, 64, 1, []byte("a")), false},
		{"ping of 125", false, build(0x89, false, 7, 125, make([]byte, 125)), false},
		{"ping of 126", false, build(0x89, false, 16, 126, make([]byte, 126)), true},
		{"fragmented ping", false, build(0x09, false, 7, 0, nil), true},
		{"opcode 3", false, build(0x83, false, 7, 0, nil), true},
		{"opcode 11", false, build(0x8b, false, 7, 0, nil), true},
		{"continuation of nothing", false, build(0x80, false, 7, 0, nil), true},
		{"text in a message", false, append(bytes.Clone(text), text...), true},
		{"ping in a message", false, slices.Concat(text, build(0x89, false, 7, 0, nil), build(0x80, false, 7, 0, nil)), false},
		{"reserved bits", false, build(0xf1, false, 7, 0, nil), false},
	} {
		for _, size := range []int{1, 100} {
			tracker := wsframe.Tracker{Masked: test.masked}
			follow(&tracker, test.stream, size)
			if got := tracker.Violated(); got != test.violated {
				t.Errorf("%s by %d: violated %v; want %v", test.name, size, got, test.violated)
			}
			if test.violated && tracker.Boundary() {
				t.Errorf("%s by %d: a boundary after a violation", test.name, size)
			}
		}
	}
}

func TestMessageSizeSumsFragments(t *testing.T) {
	var tracker wsframe.Tracker
	follow(&tracker, slices.Concat(
		build(0x02, false, 7, 3, []byte("abc")), build(0x89, false, 7, 9, make([]byte, 9)), build(0x80, false, 7, 4, []byte("defg"))), 1)
	if got := tracker.MessageSize(); got != 7 {
		t.Errorf("got %d; want 7", got)
	}
}

func TestSkip(t *testing.T) {
	var tracker wsframe.Tracker
	tracker.Next(build(0x82, false, 64, 1<<20, make([]byte, 10)))
	if got := tracker.Rest(); got != 1<<20-10 {
		t.Fatalf("rest is %d", got)
	}
	if tracker.Skip(100) || tracker.Boundary() {
		t.Error("the frame ended early")
	}
	if !tracker.Skip(1<<20-110) || !tracker.Boundary() {
		t.Error("the frame did not end")
	}
}

func TestClosed(t *testing.T) {
	for _, test := range []struct {
		payload []byte
		code    uint16
		reason  string
	}{
		{nil, 1005, ""},
		{[]byte{3}, 1005, ""},
		{[]byte{1001 >> 8, 1001 & 0xff}, 1001, ""},
		{append([]byte{4000 >> 8, 4000 & 0xff}, "why not"...), 4000, "why not"},
	} {
		var tracker wsframe.Tracker
		stream := build(0x88, false, 7, uint64(len(test.payload)), test.payload)
		follow(&tracker, append(stream, build(0x88, false, 7, 2, []byte{3, 0xe9})...), 1) // the second says nothing new
		if code, reason, ok := tracker.Closed(); code != test.code || reason != test.reason || !ok {
			t.Errorf("got %d %q %v; want %d %q", code, reason, ok, test.code, test.reason)
		}
	}
}

func TestAppendClose(t *testing.T) {
	key := [4]byte{0xde, 0xad, 0xbe, 0xef}
	for _, reason := range []string{"", "bye", strings.Repeat("x", 200), strings.Repeat("€", 60), "broken \xff rest"} {
		for _, key := range []*[4]byte{nil, &key} {
			b := wsframe.AppendClose([]byte("before"), 1012, reason, key)[len("before"):]
			tracker := wsframe.Tracker{Masked: key != nil}
			if n, ended := tracker.Next(b); n != len(b) || !ended {
				t.Errorf("%q: not one frame", reason)
			}
			code, got, ok := tracker.Closed()
			if code != 1012 || !ok || !strings.HasPrefix(reason, got) || len(got) > 123 || len(reason) < 123 && got != reason && reason[0] != 'b' {
				t.Errorf("got %d %q %v; want a beginning of %q", code, got, ok, reason)
			}
		}
	}
}

func TestTrackerAllocatesNothing(t *testing.T) {
	stream := build(0x82, true, 7, 64, make([]byte, 64))
	tracker := wsframe.Tracker{Masked: true}
	if n := testing.AllocsPerRun(100, func() { tracker.Next(stream) }); n != 0 {
		t.Errorf("%v allocations per frame", n)
	}
}

// FuzzTracker compares what the tracker says of a stream in random pieces with what it says of the whole.
func FuzzTracker(f *testing.F) {
	f.Add([]byte{0x82, 1, 'a', 0x89, 0, 0x88, 2, 3, 0xe8}, uint64(1), false)
	f.Add([]byte{0x81, 0x81, 1, 2, 3, 4, 'a', 0x01, 0xfe, 0, 3, 1, 2, 3, 4, 'a', 'b', 'c'}, uint64(2), true)
	f.Add([]byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 'x'}, uint64(3), false)
	f.Add([]byte{0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 'x'}, uint64(4), false)
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, masked bool) {
		whole, pieces := wsframe.Tracker{Masked: masked}, wsframe.Tracker{Masked: masked}
		want := follow(&whole, stream, max(len(stream), 1))
		r := rand.New(rand.NewPCG(seed, 0))
		var got []int
		for at := 0; at < len(stream); {
			size := min(1+r.IntN(9), len(stream)-at)
			if rest := pieces.Rest(); rest > 0 && pieces.Frame().Opcode != wsframe.Close && r.IntN(2) == 0 {
				size = int(min(rest, uint64(size)))
				if pieces.Skip(uint64(size)) {
					got = append(got, at+size)
				}
			} else {
				for _, end := range follow(&pieces, stream[at:at+size], size) {
					got = append(got, at+end)
				}
			}
			at += size
		}
		if !slices.Equal(got, want) || whole.Violated() != pieces.Violated() || whole.Boundary() != pieces.Boundary() {
			t.Errorf("in pieces frames end at %v (violated %v); whole at %v (%v)", got, pieces.Violated(), want, whole.Violated())
		}
		if !slices.Equal(want, naive(stream, masked)) {
			t.Errorf("frames end at %v; want %v", want, naive(stream, masked))
		}
	})
}

// naive finds the ends of frames by RFC 6455 as literally as can be.
func naive(stream []byte, masked bool) (ends []int) {
	open, at := false, 0
	for len(stream)-at >= 2 {
		b0, b1 := stream[at], stream[at+1]
		header, length := 2, uint64(b1&0x7f)
		if length == 126 {
			header = 4
		} else if length == 127 {
			header = 10
		}
		if b1&0x80 != 0 {
			header += 4
		}
		if len(stream)-at < header {
			return ends
		}
		switch b1 & 0x7f {
		case 126:
			length = uint64(binary.BigEndian.Uint16(stream[at+2:]))
		case 127:
			length = binary.BigEndian.Uint64(stream[at+2:])
		}
		opcode, final := b0&15, b0&0x80 != 0
		if (b1&0x80 != 0) != masked || length>>63 != 0 {
			return ends
		}
		switch opcode {
		case 0:
			if !open {
				return ends
			}
			open = !final
		case 1, 2:
			if open {
				return ends
			}
			open = !final
		case 8, 9, 10:
			if !final || b1&0x7f > 125 {
				return ends
			}
		default:
			return ends
		}
		if uint64(len(stream)-at-header) < length {
			return ends
		}
		at += header + int(length)
		ends = append(ends, at)
	}
	return ends
}
