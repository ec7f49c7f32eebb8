package demo

import (
	"errors"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// A file is a text that many edit at once. The server orders their edits. An edit
// of the newest version is applied and sent to everybody. An edit of an older
// version is dropped, and its author makes it again on top of the newer edits. So
// all have the same text at the same version, whatever the delays, and only the
// page needs to transform edits (editor.js).
//
// Offsets count UTF-16 units, as browsers do.
type file struct {
	name    string
	text    []uint16
	version int
}

// An edit is a list of splices, made one after the other, all or none.
type edit struct {
	Version int      `json:"version"` // before the edit; in messages to tabs, after it
	Splices []splice `json:"splices"`
}

// A splice replaces a part of the text.
type splice struct {
	At     int    `json:"at"`
	Delete int    `json:"del,omitempty"`
	Insert string `json:"ins,omitempty"`
}

const maxFile = 32 << 10 // UTF-16 units

var (
	errStale   = errors.New("made on an older version")
	errSplice  = errors.New("not a splice, or outside the text")
	errTooLong = errors.New("the text would be too long")
)

func newFile(name, text string) *file {
	return &file{name: name, text: utf16.Encode([]rune(text))}
}

// apply applies an edit, and so makes the next version.
func (f *file) apply(e edit) error {
	if e.Version != f.version {
		return errStale
	}
	if len(e.Splices) == 0 {
		return errSplice
	}
	text := slices.Clone(f.text)
	for _, s := range e.Splices {
		insert := utf16.Encode([]rune(s.Insert))
		end := s.At + s.Delete
		switch {
		case s.At < 0 || s.Delete < 0 || end < s.At || end > len(text) || splits(text, s.At) || splits(text, end):
			return errSplice
		case len(text)-s.Delete+len(insert) > maxFile:
			return errTooLong
		}
		text = slices.Replace(text, s.At, end, insert...)
	}
	f.text = text
	f.version++
	return nil
}

// splits reports whether an offset is in the middle of a character.
func splits(text []uint16, at int) bool {
	return at > 0 && at < len(text) && utf16.DecodeRune(rune(text[at-1]), rune(text[at])) != utf8.RuneError
}

func (f *file) String() string { return string(utf16.Decode(f.text)) }

// moved returns an offset as it is after the edit.
func (e edit) moved(at int) int {
	for _, s := range e.Splices {
		insert := len(utf16.Encode([]rune(s.Insert)))
		switch {
		case at <= s.At:
		case at >= s.At+s.Delete:
			at += insert - s.Delete
		default:
			at = s.At + insert
		}
	}
	return at
}
