package slipswitch

import (
	"context"
	"errors"
	"net/http"

	"github.com/slipswitch/slipswitch/internal/balance"
	"github.com/slipswitch/slipswitch/internal/dial"
	"github.com/slipswitch/slipswitch/internal/headers"
)

// Candidates are the targets that one request may go to, and the lease on the one
// that was chosen last. They implement balance.Set.
type candidates struct {
	proxy   *Proxy
	route   *Route
	targets []target
	sticky  int // the target that the client's cookie names, or -1
	picker  balance.Picker
	target  *target        // the one that was chosen last; nil means none yet
	lease   *balance.Lease // on that; nil if there is only one target
}

// candidates returns the targets of a request: the upstream that the Resolver
// returns, or the route's own ones with their templates expanded. next returns them
// in the order in which to try them: first the one of the client's cookie, then the
// less loaded ones, at last the ejected ones. The caller must end the lease.
func (p *Proxy) candidates(ctx context.Context, x *exchange, header http.Header) (*candidates, error) {
	targets, err := p.targets(ctx, x.match)
	if err != nil {
		return nil, err
	}
	c := &candidates{proxy: p, route: x.match.options(), targets: targets, sticky: -1}
	if len(targets) == 1 {
		return c, nil
	}
	if s := c.route.Sticky; s != (Sticky{}) {
		c.sticky = balance.Tagged(headers.CookieValues(header["Cookie"], s.Cookie), len(targets),
			func(i int) string { return p.tag(x.match, &targets[i]) })
	}
	if l := x.match.leaf; l.isChecked() {
		p.checker.Check(l.place, l)
	}
	c.picker = p.balancer.Pick(c, c.sticky)
	return c, nil
}

func (c *candidates) Len() int                      { return len(c.targets) }
func (c *candidates) Address(i int) balance.Address { return c.targets[i].address() }
func (c *candidates) Weight(i int) int              { return int(c.targets[i].weight) }

func (c *candidates) MaxWeight() (most int) {
	for i := range c.targets {
		most = max(most, c.Weight(i))
	}
	return most
}

// Healthy reports whether a candidate passes its route's health check.
func (c *candidates) Healthy(i int) bool {
	_, err := c.proxy.verdict(c.route, &c.targets[i])
	return err == nil
}

func (t *target) address() balance.Address {
	return balance.Address{Scheme: schemes[t.scheme], Host: t.addr}
}

// next chooses the next target, or none.
func (c *candidates) next() bool {
	if len(c.targets) == 1 {
		first := c.target == nil
		c.target = &c.targets[0]
		return first
	}
	i, lease := c.picker.Next()
	if i < 0 {
		return false
	}
	c.target, c.lease = &c.targets[i], lease
	return true
}

// try calls attempt with one candidate after another, until it connects or fails
// in another way. No byte of the request was sent if connecting has failed, so even
// one that is not idempotent may go to the next candidate.
func try[T any](c *candidates, attempt func(*target) (T, error)) (result T, err error) {
	for c.next() {
		result, err = attempt(c.target)
		if _, ours := errors.AsType[*Error](err); ours {
			break // one of our own limits, which is no failure of the upstream
		}
		failed, ok := errors.AsType[*dial.Error](err)
		if !ok {
			c.lease.Reached()
			break
		}
		if errors.Is(failed.Err, context.Canceled) {
			break
		}
		c.lease.Eject(failed.Err)
	}
	return result, err
}
