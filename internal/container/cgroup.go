package container

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// oomKills counts the processes of a cgroup that the kernel killed for want of
// memory, 0 if that cannot be told.
//
// Source: kernel, cgroup-v2.rst, memory.events; cgroup-v1/memory.rst,
// memory.oom_control.
func (h host) oomKills(path string) int {
	file := filepath.Join(cgroupRoot, "memory", path, "memory.oom_control")
	if h.cgroup2 {
		file = filepath.Join(cgroupRoot, path, "memory.events")
	}
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			n, _ := strconv.Atoi(text)
			return n
		}
	}
	return 0
}
