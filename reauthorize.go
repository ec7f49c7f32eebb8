package slipswitch

import (
	"context"
	"math/rand/v2"
	"time"
)

// reauthorizeWait bounds one call of Proxy.Reauthorize.
const reauthorizeWait = 10 * time.Second

func (p *Proxy) reauthorizeEvery() time.Duration {
	if p.ReauthorizeEvery > 0 {
		return p.ReauthorizeEvery
	}
	return 5 * time.Minute
}

// reauthorizeLater schedules the first call for a tunnel. Its time is random, so
// that tunnels that were opened together are not asked about together.
func (t *Tunnel) reauthorizeLater() {
	every := t.proxy.reauthorizeEvery()
	t.reauthorizeIn(every - rand.N(every/2+1))
}

// reauthorizeIn schedules the next call, unless the tunnel has ended.
func (t *Tunnel) reauthorizeIn(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.proxy.Reauthorize != nil && !t.ended {
		t.recheck = time.AfterFunc(d, t.reauthorize)
	}
}

// reauthorize closes the tunnel if it may not stay, or else schedules the next call.
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

// ask calls the hook. It runs on a goroutine of its own, since the hook may hang.
func (t *Tunnel) ask(ctx context.Context, answer chan<- error) {
	defer func() {
		if failed := recover(); failed != nil {
			answer <- t.proxy.panicked("Reauthorize", failed)
		}
	}()
	answer <- t.proxy.Reauthorize(ctx, t)
}
