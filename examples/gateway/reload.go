package main

import "os"

// reloads reads the certificate and the tokens again at each SIGHUP. It ends no
// socket, since a terminal that closes sends SIGHUP, too.
func (g *gateway) reloads(hangups <-chan os.Signal) {
	for range hangups {
		g.log.Info("reloading certificate and tokens at SIGHUP: stores need no reload, and flags need a restart")
		if g.certificate != nil {
			g.certificate.reload() // logs its result
		}
		if g.tokens != nil && g.tokens.file != "" {
			if err := g.tokens.read(); err != nil {
				g.log.Error("admin tokens could not be read again, the last ones stay", "error", err)
			} else {
				g.logTokens("admin tokens read again")
			}
		}
		g.log.Info("reloaded")
	}
}
