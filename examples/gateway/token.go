package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// adminToken returns the token that the admin API asks for, and the file that
// it is from, if any. With none configured it makes one in a file that only
// its owner can read, so that a restart keeps it.
func (s *settings) adminToken() (token, file string, err error) {
	if s.token != "" {
		return s.token, "", nil
	}
	file = s.tokenFile
	if file == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return "", "", fmt.Errorf("no place for a token: set -admin-token-file or %s (%w)", envName("admin-token"), err)
		}
		file = filepath.Join(dir, "slipswitch", "admin-token")
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return makeToken(file)
	}
	if err != nil {
		return "", "", err
	}
	token = strings.TrimSpace(string(text))
	if token == "" {
		return "", "", fmt.Errorf("%s is empty: write a token to it, or delete it", file)
	}
	return token, file, nil
}

// makeToken writes the file under another name first: who starts at the same
// time reads a whole token or none.
func makeToken(file string) (token, name string, err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	f, err := os.CreateTemp(dir, ".admin-token-*") // 0600 from the start
	if err != nil {
		return "", "", err
	}
	defer os.Remove(f.Name())
	token = rand.Text()
	_, err = f.WriteString(token + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return "", "", err
	}
	if err := os.Link(f.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without links: nothing but the race is lost.
		if err := os.Rename(f.Name(), file); err != nil {
			return "", "", err
		}
	}
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), file, err
}
