package wsframe

import "errors"

// State is all that a Tracker knows, as plain data: a Tracker that is set to it goes on where the other was.
type State struct {
	Masked   bool   `json:"masked,omitempty"`
	Violated bool   `json:"violated,omitempty"`
	Open     bool   `json:"open,omitempty"` // a message has begun and its final frame has not ended
	Head     []byte `json:"head,omitempty"` // of a frame whose header is unfinished
	Size     uint64 `json:"size,omitempty"`
	Rest     uint64 `json:"rest,omitempty"`

	Opcode byte   `json:"opcode,omitempty"` // of the current frame, or between two frames of the last one
	Final  bool   `json:"final,omitempty"`
	Length uint64 `json:"length,omitempty"`

	// Closing is there from the header of the first Close frame on.
	Closing *Closing `json:"closing,omitempty"`
}

// Closing is a Close frame, as far as it has come.
type Closing struct {
	Key  [4]byte `json:"key"`
	Body []byte  `json:"body,omitempty"` // masked with Key until Done
	Done bool    `json:"done,omitempty"`
}

// State returns what the tracker knows.
func (t *Tracker) State() State {
	s := State{
		Masked: t.Masked, Violated: t.violated, Open: t.open, Head: t.head[:t.got:t.got], Size: t.size, Rest: t.rest,
		Opcode: t.header.Opcode, Final: t.header.Final, Length: t.header.Length,
	}
	if t.closing != nil {
		s.Closing = &Closing{t.closing.key, t.closing.body, t.closing.done}
	}
	return s
}

// SetState has the tracker go on from s. A state that no tracker can be in is an error, and changes nothing.
func (t *Tracker) SetState(s State) error {
	control := s.Opcode >= Close
	switch {
	case s.Opcode > Pong || s.Opcode > Binary && !control:
		return errors.New("wsframe: an opcode that no frame has")
	case s.Rest > s.Length, s.Length > 1<<63-1, control && s.Length > MaxControl:
		return errors.New("wsframe: a length that no frame has")
	case len(s.Head) > 0 && (s.Rest > 0 || len(s.Head) >= headerSize(s.Head)):
		return errors.New("wsframe: a header that is no unfinished one")
	case !s.Violated && s.Rest > 0 && !control && !s.Open:
		return errors.New("wsframe: a frame of no message")
	case s.Closing != nil && len(s.Closing.Body) > MaxControl:
		return errors.New("wsframe: a Close frame that is too long")
	case !s.Violated && s.Opcode == Close && (s.Closing == nil || !s.Closing.Done && uint64(len(s.Closing.Body)) != s.Length-s.Rest):
		return errors.New("wsframe: a Close frame without what has come of it")
	}
	*t = Tracker{
		Masked: s.Masked, violated: s.Violated, open: s.Open, size: s.Size, rest: s.Rest,
		header: Header{s.Opcode, s.Final, s.Length}, got: uint8(len(s.Head)),
	}
	copy(t.head[:], s.Head)
	if s.Closing != nil {
		t.closing = &closing{s.Closing.Key, s.Closing.Body, s.Closing.Done}
	}
	return nil
}
