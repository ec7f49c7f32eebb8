package http1

import (
	"errors"
	"io"
)

var (
	// ErrHeaderTimeout, ErrStreamTimeout and ErrStallTimeout end a request whose
	// Request.HeaderTimeout, StreamTimeout or StallTimeout has passed.
	ErrHeaderTimeout = errors.New("no response header in time")
	ErrStreamTimeout = errors.New("no further byte of the response in time")
	ErrStallTimeout  = errors.New("the upstream did not take the request in time")

	// ErrClosed is returned by reads after Response.Close.
	ErrClosed = errors.New("read of a closed response")
)

// A ProtocolError is a response that breaks the protocol. The connection is gone.
type ProtocolError struct{ reason string }

func (e *ProtocolError) Error() string { return "the upstream's response " + e.reason }

// A RequestError is a request that cannot be sent. Not a byte of it was.
type RequestError struct{ reason string }

func (e *RequestError) Error() string { return "the request " + e.reason }

// A BodyError is a failure to read Request.Body: not the upstream's.
type BodyError struct{ Err error }

func (e *BodyError) Error() string { return "reading the request's body: " + e.Err.Error() }
func (e *BodyError) Unwrap() error { return e.Err }

// A writeError is a failure to send the request.
type writeError struct{ err error }

func (e *writeError) Error() string { return "sending the request: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// errNoAnswer is an end of the connection where a header should begin.
var errNoAnswer error = &cutError{"the upstream closed the connection without an answer"}

// errCut is an end of the connection within a response.
var errCut error = &cutError{"the upstream closed the connection within its response"}

type cutError struct{ text string }

func (e *cutError) Error() string { return e.text }
func (e *cutError) Unwrap() error { return io.ErrUnexpectedEOF }
