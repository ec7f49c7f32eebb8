// Package deadline bounds waits that are repeated often, such as each read of a
// body and each write to a client.
package deadline

import (
	"sync"
	"time"
)

// A Timer calls Expire when it is armed and not paused in time. Once Pause or Disarm
// has returned, Expire is not called for what was armed before. All methods may be
// called at the same time. A Timer that is never armed costs nothing.
type Timer struct {
	// Expire must not call methods of the Timer. It is set before the first Arm.
	Expire func()

	mu          sync.Mutex
	timer       *time.Timer
	armed, over bool
	late        int // calls of fire that were under way when the timer was stopped
}

// Arm has Expire called after a timeout, and no longer after an earlier one. Zero
// means no timeout: an earlier one goes on.
func (t *Timer) Arm(timeout time.Duration) {
	if timeout <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(timeout, t.fire)
	} else if stopped := t.timer.Reset(timeout); t.armed && !stopped {
		t.late++
	}
	t.armed = true
}

func (t *Timer) fire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.late > 0:
		t.late--
	case t.armed:
		t.armed = false
		t.Expire()
	}
}

// Pause stops the Timer until it is armed again.
func (t *Timer) Pause() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause()
}

func (t *Timer) pause() {
	if t.armed {
		t.armed = false
		if !t.timer.Stop() {
			t.late++
		}
	}
}

// Disarm stops the Timer for good.
func (t *Timer) Disarm() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pause()
	t.over = true
}
