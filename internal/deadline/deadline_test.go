package deadline_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch/internal/deadline"
)

func TestTimer(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*deadline.Timer)
		want time.Duration // until Expire is called; 0: never
	}{
		"never armed":       {func(d *deadline.Timer) {}, 0},
		"armed":             {func(d *deadline.Timer) { d.Arm(time.Second) }, time.Second},
		"no timeout":        {func(d *deadline.Timer) { d.Arm(0); d.Arm(-1) }, 0},
		"paused":            {func(d *deadline.Timer) { d.Arm(time.Second); d.Pause() }, 0},
		"armed again":       {func(d *deadline.Timer) { d.Arm(time.Second); d.Pause(); d.Arm(time.Minute) }, time.Minute},
		"armed twice":       {func(d *deadline.Timer) { d.Arm(time.Second); d.Arm(time.Minute) }, time.Minute},
		"disarmed":          {func(d *deadline.Timer) { d.Arm(time.Second); d.Disarm() }, 0},
		"armed too late":    {func(d *deadline.Timer) { d.Disarm(); d.Pause(); d.Arm(time.Second) }, 0},
		"paused unarmed":    {func(d *deadline.Timer) { d.Pause(); d.Arm(time.Second) }, time.Second},
		"disarmed unarmed":  {func(d *deadline.Timer) { d.Disarm(); d.Disarm() }, 0},
		"paused and no arm": {func(d *deadline.Timer) { d.Arm(time.Second); d.Pause(); d.Arm(0) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, expired, calls := time.Now(), time.Duration(0), 0
				d := deadline.Timer{Expire: func() { expired = time.Since(start); calls++ }}
				test.do(&d)
				time.Sleep(time.Hour)
				synctest.Wait()
				if expired != test.want || calls > 1 {
					t.Errorf("expired after %v, %d times; want %v", expired, calls, test.want)
				}
			})
		})
	}
}

func TestTimerExpiresAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		d := deadline.Timer{Expire: func() { calls++ }}
		for range 3 {
			d.Arm(time.Second)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if calls != 3 {
			t.Errorf("expired %d times; want 3", calls)
		}
	})
}

// TestPausedAtTheLastMoment: a timeout that ends just as the Timer is paused and
// armed again does not count for the next one.
func TestPausedAtTheLastMoment(t *testing.T) {
	var calls atomic.Int64
	d := deadline.Timer{Expire: func() { calls.Add(1) }}
	defer d.Disarm()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		const timeout = 20 * time.Microsecond
		start := time.Now()
		d.Arm(timeout)
		for time.Since(start) < timeout {
			runtime.Gosched()
		}
		d.Pause()
		before := calls.Load()
		d.Arm(time.Hour)
		for range 10 {
			runtime.Gosched()
		}
		if calls.Load() != before {
			t.Fatal("expired at once; want after an hour")
		}
	}
}
