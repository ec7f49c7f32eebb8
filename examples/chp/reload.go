package main

import (
	"errors"
	"fmt"
	"os"
)

// reloads reads the certificates again at each SIGHUP. It ends no socket, since a
// terminal that closes sends SIGHUP, too. Error pages are read for each answer.
func (s *standIn) reloads(hangups <-chan os.Signal) {
	for range hangups {
		s.log.Info("reloading certificates at SIGHUP: --client-ssl-ca, options and environment need a restart")
		var failed error
		for name, err := range map[string]error{"--ssl-": s.load(&s.ssl), "--api-ssl-": s.load(&s.apiSSL), "--client-ssl-": s.clientSSL.load()} {
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
			}
		}
		if failed != nil {
			s.log.Error("reloaded; certificates that cannot be read stay as they were", "error", failed)
		} else {
			s.log.Info("reloaded")
		}
	}
}
