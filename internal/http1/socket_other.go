//go:build !unix

package http1

// Sockets cannot be looked at here: reads go through net.Conn.
const (
	canPeek   = false
	canSplice = false
)

func countReadable(uintptr, int) (int, bool, error) { panic("http1: nothing is spliced here") }

func tryRead(uintptr, []byte) (int, bool, error) {
	panic("http1: no socket can be read without waiting here")
}

func peek(uintptr) (state, error) { panic("http1: no socket can be looked at here") }
