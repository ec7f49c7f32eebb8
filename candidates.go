package slipswitch

import (
	"context"
	"errors"
	"net/http"

	"github.com/slipswitch/slipswitch/internal/dial"
)

// Candidates are the upstreams that one request may be led to, and what it holds
// of the one that was chosen, for as long as it, or its tunnel, goes on.
type candidates struct {
	picker  *picker
	leaf    *leaf // the request's
	targets []target
	sticky  *target // which the client's cookie names; nil: none
	first   int     // the target to try first; -1: none in particular
	tried   []bool
	most    int   // the greatest weight
	taken   *load // to be given back; nil: nothing
	target  *target
}

// candidates returns where a request may go: to what the Resolver says, or to the
// route's own upstreams, with what their templates capture. They come in the order
// in which to try them: the one of the client's cookie, then the less loaded, those
// that are ejected last. Their end must be called.
func (p *Proxy) candidates(ctx context.Context, x *exchange, header http.Header) (*candidates, error) {
	targets, err := p.targets(ctx, x.match)
	if err != nil {
		return nil, err
	}
	c := &candidates{picker: &p.picker, leaf: x.match.leaf, targets: targets, first: p.stickyTarget(x.match, header, targets)}
	if c.first >= 0 {
		c.sticky = &targets[c.first]
	}
	return c, nil
}

// try calls attempt with one candidate after another until it does something
// else than fail to connect. A connection that failed has carried nothing, so
// the next may be tried whatever the request.
func try[T any](c *candidates, attempt func(*target) (T, error)) (result T, err error) {
	for t := c.next(); t != nil; t = c.next() {
		result, err = attempt(t)
		if _, ours := errors.AsType[*Error](err); ours {
			break // our own limits, which say nothing of the upstream
		}
		failed, ok := errors.AsType[*dial.Error](err)
		if !ok {
			c.worked()
			break
		}
		if errors.Is(failed.Err, context.Canceled) {
			break
		}
		c.failed(failed.Err)
	}
	return result, err
}
