package splice_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipswitch/slipswitch/internal/splice"
)

// An entry is called once, at its earliest deadline or up to two ticks later, also beyond a round of the wheel.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := splice.StartClock()
		defer c.Stop()
		r := rand.New(rand.NewPCG(1, 1))
		begin := time.Now()
		want := map[int]time.Duration{}
		got := map[int]time.Duration{}
		for i := range 2000 {
			e := splice.NewEntry(func() {
				if _, again := got[i]; again {
					t.Errorf("entry %d was called twice", i)
				}
				got[i] = time.Since(begin)
			})
			at := time.Duration(r.Int64N(int64(3 * time.Minute)))
			want[i] = time.Since(begin) + at
			c.Wake(e, at)
			switch i % 5 {
			case 0: // later changes nothing
				c.Wake(e, at+time.Minute)
			case 1: // earlier does
				c.Wake(e, at/2)
				want[i] = time.Since(begin) + at/2
			case 2:
				c.Forget(e)
				delete(want, i)
			}
			time.Sleep(time.Duration(r.Int64N(int64(10 * time.Millisecond))))
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		for i, at := range want {
			if late := got[i] - at; late < 0 || late > 2*splice.Tick {
				t.Errorf("entry %d was called %v late", i, late)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d entries were called; want %d", len(got), len(want))
		}
	})
}

// Times are told by the wall clock as it goes now.
func TestClockWasSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, back := range []time.Duration{0, time.Hour, -time.Hour} {
			c := splice.StartClock()
			time.Sleep(time.Minute)
			if got, want := c.At(back), time.Now().Add(-back); got.Sub(want).Abs() > time.Second {
				t.Errorf("set back by %v: got %v; want %v", back, got, want)
			}
			c.Stop()
		}
	})
}
