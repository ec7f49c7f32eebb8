// Package socket opens the Unix sockets that programs serve on.
package socket

import (
	"fmt"
	"net"
	"os"
)

// Listen opens a Unix socket at a path. It removes a socket that a former process
// has left, but not one that still answers.
func Listen(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s is in use by another process", path)
	} else if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		os.Remove(path)
	}
	return net.Listen("unix", path)
}
