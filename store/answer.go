package store

import (
	"context"
	"errors"
	"net/http"

	"github.com/slipswitch/slipswitch"
)

// answers are the statuses of errors, the first that fits.
var answers = []struct {
	err    error
	status int
}{
	{ErrHeld, http.StatusAccepted},
	{ErrTooLarge, http.StatusRequestEntityTooLarge},
	{ErrReadOnly, http.StatusConflict},
	{ErrNoLeases, http.StatusNotImplemented},
	{ErrUnavailable, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusGatewayTimeout},
	{context.Canceled, http.StatusServiceUnavailable},
}

// Answer gives an error of this package, or of a context, the status that a REST
// API answers it with; the reason is the error's text. It returns others, and
// nil, as they are. Sync.Apply, with Answer around its error, is what
// admin.Handler.Write asks for.
func Answer(err error) error {
	for _, known := range answers {
		if errors.Is(err, known.err) {
			return &slipswitch.Error{Status: known.status, Reason: err.Error(), Err: err}
		}
	}
	return err
}
