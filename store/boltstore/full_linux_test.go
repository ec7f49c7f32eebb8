package boltstore_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipswitch/slipswitch"
	"github.com/slipswitch/slipswitch/store"
	"github.com/slipswitch/slipswitch/store/boltstore"
	"github.com/slipswitch/slipswitch/store/storetest"
)

// On a full disk writes are refused with the reason, reads and WebSockets go
// on, and once there is space again, so do writes. The disk is a small tmpfs
// in a mount namespace of its own: the test runs itself again in there.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv("BOLTSTORE_SMALL_DISK"); dir != "" {
		testDiskFull(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := child(t, "", "-test.run=^TestDiskFull$", "-test.v")
	cmd.Env = append(cmd.Env, "BOLTSTORE_SMALL_DISK="+dir)
	cmd.Stderr = nil
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && (len(out) == 0 || strings.Contains(string(out), cannotMount)) {
		needs(t, false, fmt.Sprintf("to mount a tmpfs in a namespace of its own, as root or as an unprivileged user may (%v)", err))
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestDiskFull") {
		t.Fatalf("%v:\n%s", err, out)
	}
}

const cannotMount = "cannot mount a tmpfs"

func testDiskFull(t *testing.T, dir string) {
	if flag.Lookup("test.run").Value.String() != "^TestDiskFull$" {
		t.Fatal("not in a process of its own")
	}
	// Nothing of what is mounted here may be seen outside.
	syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(cannotMount, err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)

	sockets := storetest.NewSockets(t)
	s := open(t, filepath.Join(dir, "routes.db"))
	router := new(slipswitch.Router)
	sync := &store.Sync{Source: s, Router: router}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); sync.Run(ctx) }()
	defer func() { cancel(); <-done }()
	route := sockets.Route()
	if _, err := sync.Apply(ctx, "", slipswitch.Change{Put: &route}); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1000)
	sockets.Open(router, 100)

	for round := range 3 {
		ballast := filepath.Join(dir, "ballast")
		if err := fillDisk(ballast); err != nil {
			t.Fatal(err)
		}
		before := router.Table().Len()
		var err error
		n := 0
		for ; n < 1000 && err == nil; n++ { // until what space the file itself has is used
			_, err = sync.Apply(ctx, "", large(round, n))
		}
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("after %d writes to a full disk: %v; want ErrUnavailable, with no space left as the reason", n, err)
		}
		if got, want := router.Table().Len(), before+n-1; got != want {
			t.Errorf("the table has %d routes; want %d", got, want)
		}
		if there := load(t, s); len(there) != router.Table().Len() {
			t.Errorf("the store has %d routes; want %d", len(there), router.Table().Len())
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if _, err := sync.Apply(ctx, "", large(round, n)); err != nil {
			t.Fatalf("with space again: %v", err)
		}
		if status := sync.Status(); status.Error != "" {
			t.Errorf("status %+v; want nothing wrong", status)
		}
		for i := range n + 1 {
			if _, err := sync.Apply(ctx, "", slipswitch.Change{Delete: new(large(round, i).Put.Key())}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// And the file is sound.
	there := load(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := boltstore.Open(filepath.Join(dir, "routes.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if again := load(t, s); len(again) != len(there) || len(again) != 1001 {
		t.Errorf("opened again it has %d routes; want %d", len(again), len(there))
	}
}

func large(round, n int) slipswitch.Change {
	c := put(fmt.Sprintf("/large/%d/%d", round, n), "up")
	c.Put.Labels = map[string]string{"filler": strings.Repeat("x", 30_000)}
	return c
}

// fillDisk writes a file until there is no space for more.
func fillDisk(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	deadline := time.Now().Add(10 * time.Second)
	for block := make([]byte, 4096); time.Now().Before(deadline); {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return errors.New("the disk does not become full")
}
