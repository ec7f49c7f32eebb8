package slipswitch

import (
	"context"
	"errors"
	"math/rand/v2"
)

// tryEach calls attempt with each of targets, beginning with a random
// one, until it does something else than fail to connect. A connection that
// failed has carried nothing, so the next may be tried whatever the request.
func tryEach[T any](targets []target, attempt func(*target) (T, error)) (result T, err error) {
	first := 0
	if len(targets) > 1 {
		first = rand.IntN(len(targets))
	}
	for i := range targets {
		result, err = attempt(&targets[(first+i)%len(targets)])
		failed, ok := errors.AsType[*dialError](err)
		if !ok || errors.Is(failed.err, context.Canceled) {
			return result, err
		}
	}
	return result, err
}
