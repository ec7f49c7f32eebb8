package main

import "os"

// reloads reads again, at each signal, what can change while the gateway
// serves: a closed terminal sends SIGHUP, too, and must not end a socket.
func (g *gateway) reloads(hangups <-chan os.Signal) {
	for range hangups {
		g.log.Info("reloading certificate and tokens at SIGHUP: stores are followed all the time, and flags need a restart")
		if g.certificate != nil {
			g.certificate.reload() // logs what it does
		}
		if g.tokens != nil && g.tokens.file != "" {
			if err := g.tokens.read(); err != nil {
				g.log.Error("admin tokens not read again, the last ones stay", "error", err)
			} else {
				g.logTokens("admin tokens read again")
			}
		}
		g.log.Info("reloaded")
	}
}
