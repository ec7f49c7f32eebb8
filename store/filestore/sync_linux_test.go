package filestore_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A file is on the disk before it takes the other's place: under strace, each
// rename comes behind a sync that has succeeded, and that behind the last write.
func TestEachWriteSyncs(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("this test needs strace (apt-get install strace)")
	}
	const writes = 10
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-y", "-o", trace, "-e", "trace=write,fsync,renameat,renameat2", os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+t.TempDir(), childEnv+"_FIRST=1", childEnv+"_LAST=10")
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "ptrace") && os.Getenv("CI") == "" {
			t.Skip("this test needs to be allowed to trace processes")
		}
		t.Fatalf("%v: %s", err, out)
	}
	calls, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	synced, syncing, renames := true, false, 0
	for line := range strings.Lines(string(calls)) {
		ours := strings.Contains(line, ".written.json.new")
		switch {
		case strings.Contains(line, " renameat(") || strings.Contains(line, " renameat2("):
			if renames++; !synced {
				t.Errorf("renamed before it was synced: %s", line)
			}
		case strings.Contains(line, " write("):
			synced = synced && !ours
		case strings.Contains(line, " fsync("):
			syncing = ours // and not the directory
			synced = synced || ours && strings.Contains(line, "= 0")
		case strings.Contains(line, "fsync resumed"):
			synced = synced || syncing && strings.Contains(line, "= 0")
		}
	}
	if renames != writes {
		t.Errorf("%d renames; want %d", renames, writes)
	}
}
