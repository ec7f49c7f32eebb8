package slipswitch

import (
	"context"
	"errors"
	"math/rand/v2"
)

// tryEach calls attempt with the route's upstreams, beginning with a random
// one, until it does something else than fail to connect. A connection that
// failed has carried nothing, so the next may be tried whatever the request.
func tryEach[T any](l *leaf, attempt func(*target) (T, error)) (result T, err error) {
	first := 0
	if len(l.targets) > 1 {
		first = rand.IntN(len(l.targets))
	}
	for i := range l.targets {
		result, err = attempt(&l.targets[(first+i)%len(l.targets)])
		failed, ok := errors.AsType[*dialError](err)
		if !ok || errors.Is(failed.err, context.Canceled) {
			return result, err
		}
	}
	return result, err
}
