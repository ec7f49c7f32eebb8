package descriptor_test

import (
	"testing"

	"github.com/slipswitch/slipswitch/internal/descriptor"
)

func TestReserve(t *testing.T) {
	for _, test := range []struct{ spare, limit, want int }{
		{30, 1024, 30}, {1 << 30, 1024, 1 << 30}, {0, 1024, 64}, {0, 100, 25}, {0, 1 << 20, 1 << 15}, {0, 0, 0},
	} {
		if got := descriptor.Reserve(test.spare, test.limit); got != test.want {
			t.Errorf("Reserve(%d, %d): got %d; want %d", test.spare, test.limit, got, test.want)
		}
	}
}
