package boltstore_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// needs ends the test if it cannot be done here: as a failure in continuous
// integration, where everything must be.
func needs(t *testing.T, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("CI") != "":
		t.Fatalf("this test needs %s", what)
	default:
		t.Skipf("this test needs %s", what)
	}
}

// Each acknowledged write has been synced to the disk: under strace, between
// its last byte and its acknowledgement there is a sync that has succeeded.
func TestEachCommitSyncs(t *testing.T) {
	strace, err := exec.LookPath("strace")
	needs(t, err == nil, "strace (apt-get install strace)")
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	cmd := child(t, "write", "-f", "-o", trace, "-e", "trace=write,pwrite64,fdatasync,fsync,sync_file_range,msync",
		os.Args[0], filepath.Join(dir, "routes.db"), "25")
	cmd.Path, cmd.Args[0] = strace, strace
	if out, err := cmd.Output(); err != nil {
		if strings.Contains(string(out), "ptrace") {
			needs(t, false, "to be allowed to trace processes")
		}
		t.Fatalf("%v: %s", err, out)
	}
	file, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var (
		acknowledgement = regexp.MustCompile(`write\(1, "writer0 \d+`)
		written         = regexp.MustCompile(`pwrite64`)
		begun           = regexp.MustCompile(`(fdatasync|fsync)\(`)
		synced          = regexp.MustCompile(`(fdatasync|fsync)(\(\d+\)| resumed>.*\)) += 0`)

		acks, syncs, unsynced, began = 0, 0, 0, 0
	)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if begun.MatchString(line) {
			began = unsynced // what is written from here on it need not cover
		}
		switch {
		case synced.MatchString(line):
			syncs++
			unsynced -= began
		case written.MatchString(line):
			unsynced++
		case acknowledgement.MatchString(line):
			acks++
			if unsynced > 0 {
				t.Errorf("acknowledgement %d came before %d writes to the file were synced", acks, unsynced)
			}
		}
	}
	if acks != 25 || syncs < acks {
		t.Errorf("%d acknowledgements and %d syncs; want 25, and as many syncs at least", acks, syncs)
	}
	t.Logf("%d acknowledgements, %d syncs", acks, syncs)
}
