package slipswitch

import (
	"context"
	"math/rand/v2"
	"time"
)

// reauthorizeWait is how long Proxy.Reauthorize may take.
const reauthorizeWait = 10 * time.Second

func (p *Proxy) reauthorizeEvery() time.Duration {
	if p.ReauthorizeEvery > 0 {
		return p.ReauthorizeEvery
	}
	return 5 * time.Minute
}

// reauthorizeLater has the tunnel asked about for the first time: not together
// with those that were opened together with it.
func (t *Tunnel) reauthorizeLater() {
	every := t.proxy.reauthorizeEvery()
	t.reauthorizeIn(every - rand.N(every/2+1))
}

// reauthorizeIn has the tunnel asked about after a time, if it is there by then.
func (t *Tunnel) reauthorizeIn(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.proxy.Reauthorize != nil && !t.ended {
		t.recheck = time.AfterFunc(d, t.reauthorize)
	}
}

// reauthorize asks whether the tunnel may stay.
func (t *Tunnel) reauthorize() {
	if t.hasEnded() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), reauthorizeWait)
	defer cancel()
	answer := make(chan error, 1)
	go t.ask(ctx, answer)
	var err error
	select {
	case err = <-answer:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		t.proxy.log().Info("slipswitch: a tunnel may not stay", "tunnel", t.id, "route", t.match.String(), "error", err)
		t.close(WhyLoginExpired, 0, "")
		return
	}
	every := t.proxy.reauthorizeEvery()
	t.reauthorizeIn(every - every/20 + rand.N(every/10+1))
}

// ask has a goroutine of its own, since the hook may hang or panic.
func (t *Tunnel) ask(ctx context.Context, answer chan<- error) {
	defer func() {
		if failed := recover(); failed != nil {
			answer <- t.proxy.panicked("Reauthorize", failed)
		}
	}()
	answer <- t.proxy.Reauthorize(ctx, t)
}
