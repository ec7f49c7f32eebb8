// Package socket opens the Unix sockets that programs serve on.
package socket

import (
	"fmt"
	"net"
	"os"
)

// Listen opens a Unix socket at a path. One that a process before has left is
// removed; one that somebody answers at is not.
func Listen(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s is in use by another process", path)
	} else if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		os.Remove(path)
	}
	return net.Listen("unix", path)
}
