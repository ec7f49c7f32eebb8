package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
)

func TestAnswer(t *testing.T) {
	for err, want := range map[error]int{
		store.ErrHeld:            202,
		store.ErrTooLarge:        413,
		store.ErrReadOnly:        409,
		store.ErrNoLeases:        501,
		store.ErrUnavailable:     503,
		context.Canceled:         503,
		context.DeadlineExceeded: 504,
	} {
		got, ok := errors.AsType[*slipswitch.Error](store.Answer(fmt.Errorf("why: %w", err)))
		if !ok || got.Status != want || got.Reason != "why: "+err.Error() || !errors.Is(got, err) {
			t.Errorf("%v: got %+v; want status %d", err, got, want)
		}
	}
	// The store's word goes before that of a context that ended meanwhile.
	both := fmt.Errorf("%w: %w", store.ErrHeld, context.DeadlineExceeded)
	if got, _ := errors.AsType[*slipswitch.Error](store.Answer(both)); got == nil || got.Status != 202 {
		t.Errorf("%v: got %+v; want status 202", both, got)
	}
	other := errors.New("other")
	if store.Answer(other) != other || store.Answer(nil) != nil {
		t.Error("an error of others, or none, does not come back as it was")
	}
}
