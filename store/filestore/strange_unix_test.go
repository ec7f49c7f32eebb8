//go:build unix

package filestore_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is no regular file within the directory is not read.
func TestStrangeFiles(t *testing.T) {
	r := newRig(t)
	outside := filepath.Join(t.TempDir(), "secret.yaml")
	write(t, filepath.Dir(outside), "secret.yaml", "- path: /secret\n  upstreams: [http://1]")
	if err := os.Symlink(outside, filepath.Join(r.dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.dir, "dir.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := []string{"dir.yaml: must be a regular file", "large.yaml: must be at most 1048576 bytes", "link.yaml: path escapes"}
	if err := syscall.Mkfifo(filepath.Join(r.dir, "pipe.yaml"), 0o600); err == nil {
		want = append(want, "pipe.yaml: must be a regular file")
	}
	r.write("large.yaml", "# "+strings.Repeat("x", 1<<20))
	r.write("z.yaml", "- path: /a\n  upstreams: [http://1]")
	r.want([]string{":/a=1"}, want)
}
