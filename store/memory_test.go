package store_test

import (
	"testing"

	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Subject {
		memory := new(store.Memory)
		return storetest.Subject{Volatile: true, Open: func(*testing.T) store.Store { return memory }}
	})
}
