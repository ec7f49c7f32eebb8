package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// A certificate is read from two files, and again when they change. It checks the
// files when a client connects, at most once a second, so that there is nothing
// to start or stop. While the files do not match, such as between the writing of
// one and the other, the last pair that did is used.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	read    stamps    // of the files that current was read from
	failed  *stamps   // of the files that could not be read; nil: the last attempt succeeded
	looked  time.Time // at the files
}

// stamps tell whether files have changed. They follow links, since Kubernetes
// updates a secret by replacing a link.
type stamps [2]struct {
	modified time.Time
	size     int64
}

func (c *certificate) stamps() (s stamps, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i].modified, s[i].size = info.ModTime(), info.Size()
	}
	return s, nil
}

// load reads the files for the first time.
func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.look()
}

// reload reads the files again, even if they have not changed.
func (c *certificate) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.failed = stamps{}, nil
	return c.look()
}

// look reads the files if they have changed. The lock is held, so look never
// waits for the logger: while it hung, no client would get a certificate.
func (c *certificate) look() error {
	c.looked = time.Now()
	now, err := c.stamps()
	if err == nil && now == c.read {
		return nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile)
	}
	if err != nil {
		if c.current != nil && (c.failed == nil || now != *c.failed) {
			go c.log.Error("certificate could not be read again, the last one stays", "error", err)
		}
		c.failed = &now
		return fmt.Errorf("certificate: %w", err)
	}
	if c.current != nil {
		go c.log.Info("certificate read again", "until", pair.Leaf.NotAfter)
	}
	c.current, c.read, c.failed = &pair, now, nil
	return nil
}

// get is for the GetCertificate of a tls.Config.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= time.Second {
		c.look()
	}
	return c.current, nil
}
