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

// soleHolder is the name of the holder of a token without a name.
const soleHolder = "admin"

// tokens are the tokens that the admin API accepts, by the names of their
// holders.
type tokens struct {
	file     string // that they were read from; empty: they cannot change
	made     bool   // the file is new
	readable bool   // by others than its owner

	current atomic.Pointer[map[string]string]
}

// openTokens returns the configured token, or those of a file. Without either, it
// creates a token in a file that only its owner can read, so that a restart keeps
// it.
func (s *settings) openTokens() (*tokens, error) {
	t := new(tokens)
	if s.token != "" {
		t.current.Store(&map[string]string{soleHolder: s.token})
		return t, nil
	}
	if t.file = s.tokenFile; t.file == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, fmt.Errorf("there is no directory for a token: set -admin-token-file or %s (%w)", envName("admin-token"), err)
		}
		dir = filepath.Join(dir, "slipswitch")
		if err := os.MkdirAll(dir, 0o700); err != nil { // the default one only: another name may be mistyped
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

// read reads the file. If that fails, the tokens stay.
func (t *tokens) read() error {
	if t.file == "" {
		return nil
	}
	info, err := os.Stat(t.file)
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" { // Windows has no such modes
		if mode := info.Mode().Perm(); mode&0o002 != 0 {
			return fmt.Errorf("%s has mode %04o, so everybody can write a token to it: chmod 600", t.file, mode)
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

// all is for the Tokens of an admin.Handler.
func (t *tokens) all() map[string]string { return *t.current.Load() }

// parseTokens reads one token, or lines of a name and a token each. Its errors
// name the line, and never quote it.
func parseTokens(text string) (map[string]string, error) {
	all, holders := make(map[string]string), make(map[string]bool)
	fields := strings.Fields(text)
	switch {
	case len(fields) == 0:
		return nil, errors.New("the file is empty: write a token to it, or delete it")
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
			return nil, fmt.Errorf("line %d must be a name and a token, separated by a space; only a single token needs no name", number)
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

// checkToken refuses a token that no request could carry.
func checkToken(token string) error {
	if strings.ContainsFunc(token, func(c rune) bool { return !unicode.IsPrint(c) }) || strings.TrimSpace(token) != token {
		return errors.New("a token must have only printable characters, and no white space at its ends: no request could carry it")
	}
	return nil
}

// makeToken writes a token to a file in an existing directory. It writes to a
// temporary file first, so that a program that starts at the same time reads a
// whole token or none. Made is false if another program was faster.
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
	if err != nil { // a file system without links: only the protection from the race is lost
		err = os.Rename(f.Name(), file)
	}
	return err == nil, err
}
