package run

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Tree returns a process and all that descend from it.
func Tree(root int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may hold anything.
		_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[0] == "Z" {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	list := []int{root}
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list
}

// CPU returns the processor time that processes have used so far.
func CPU(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		sum += processTime(pid)
	}
	return sum
}

// Memory returns how much memory processes have, in bytes. What they share
// counts once.
func Memory(pids []int) (sum int) {
	for _, pid := range pids {
		sum += field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
	}
	return sum
}

// Descriptors returns how many are open.
func Descriptors(pids []int) (sum int) {
	for _, pid := range pids {
		names, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		sum += len(names)
	}
	return sum
}

// field returns what stands behind a name in a file of /proc, in bytes.
func field(file, name string) int {
	text, _ := os.ReadFile(file)
	_, rest, found := strings.Cut(string(text), name)
	if !found {
		return 0
	}
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	return kib << 10
}
