package run

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// newHead describes this machine.
func newHead() Head {
	return Head{
		Command: "go run ./bench " + strings.Join(os.Args[1:], " "),
		Began:   time.Now().UTC().Format(time.RFC3339),
		Machine: machine(),
		Kernel:  firstLine("uname", "-sr"),
		Cores:   runtime.NumCPU(),
		Memory:  field("/proc/meminfo", "MemTotal:"),
		Go:      runtime.Version(),
		Commit:  commit(),
	}
}

// machine is what the processor calls itself.
func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, found := strings.Cut(string(text), "model name"); found {
		line, _, _ := strings.Cut(rest, "\n")
		return strings.Trim(line, "\t :")
	}
	return runtime.GOARCH
}

func commit() string {
	hash := firstLine("git", "rev-parse", "--short", "HEAD")
	if hash != "" && firstLine("git", "status", "--porcelain", "--untracked-files=no") != "" {
		hash += "+"
	}
	return hash
}

// firstLine is what a command prints; nothing if it fails.
func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
