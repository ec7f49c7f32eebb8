package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"unicode"
)

// soleHolder is the name of whoever has a token without one.
const soleHolder = "admin"

// tokens are what the admin API asks for, one of them, by their holders' names.
type tokens struct {
	file     string // that they are from; "": they cannot change
	made     bool   // it is new
	readable bool   // others than its owner can read it

	current atomic.Pointer[map[string]string]
}

// openTokens takes the token that is configured, or reads those of a file. If
// there is neither, it makes one in a file that only its owner can read, so
// that a restart keeps it.
func (s *settings) openTokens() (*tokens, error) {
	t := new(tokens)
	if s.token != "" {
		t.current.Store(&map[string]string{soleHolder: s.token})
		return t, nil
	}
	if t.file = s.tokenFile; t.file == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, fmt.Errorf("no place for a token: set -admin-token-file or %s (%w)", envName("admin-token"), err)
		}
		dir = filepath.Join(dir, "slipswitch")
		if err := os.MkdirAll(dir, 0o700); err != nil { // no other: its name may be mistyped
			return nil, err
		}
		t.file = filepath.Join(dir, "admin-token")
	}
	err := t.read()
	if errors.Is(err, fs.ErrNotExist) {
		if t.made, err = makeToken(t.file); err == nil {
			err = t.read()
		}
	}
	return t, err
}

// read reads the file. If that fails, the tokens stay what they were.
func (t *tokens) read() error {
	if t.file == "" {
		return nil
	}
	info, err := os.Stat(t.file)
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" { // which has no such modes
		if mode := info.Mode().Perm(); mode&0o002 != 0 {
			return fmt.Errorf("%s has mode %04o, so that everybody can write a token to it: chmod 600", t.file, mode)
		}
		t.readable = info.Mode().Perm()&0o004 != 0
	}
	text, err := os.ReadFile(t.file)
	if err != nil {
		return err
	}
	all, err := parseTokens(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", t.file, err)
	}
	t.current.Store(&all)
	return nil
}

// all is an admin.Handler's Tokens.
func (t *tokens) all() map[string]string { return *t.current.Load() }

// parseTokens reads one token, or lines of a name and a token each. Errors name
// the line, and never what is in it.
func parseTokens(text string) (map[string]string, error) {
	all, holders := make(map[string]string), make(map[string]bool)
	fields := strings.Fields(text)
	switch {
	case len(fields) == 0:
		return nil, errors.New("it is empty: write a token to it, or delete it")
	case len(fields) == 1:
		all[soleHolder] = fields[0]
		return all, checkToken(fields[0])
	}
	number := 0
	for line := range strings.Lines(text) {
		number++
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case len(fields) != 2:
			return nil, fmt.Errorf("line %d must be a name and a token with a space between; only one token alone needs no name", number)
		case all[fields[0]] != "" || holders[fields[1]]:
			return nil, fmt.Errorf("line %d has the name or the token of another line", number)
		}
		if err := checkToken(fields[1]); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		all[fields[0]], holders[fields[1]] = fields[1], true
	}
	return all, nil
}

// checkToken refuses what no request could name.
func checkToken(token string) error {
	if strings.ContainsFunc(token, func(c rune) bool { return !unicode.IsPrint(c) }) || strings.TrimSpace(token) != token {
		return errors.New("a token must have printable characters only, and no white space at its ends: requests could not name it")
	}
	return nil
}

// makeToken writes a file, whose directory must be there, under another name
// first: who starts at the same time reads a whole token or none. Made is false
// if somebody else was faster.
func makeToken(file string) (made bool, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".admin-token-*") // 0600 from the start
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(rand.Text() + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	err = os.Link(f.Name(), file)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil { // a file system without links: nothing but the race is lost
		err = os.Rename(f.Name(), file)
	}
	return err == nil, err
}
