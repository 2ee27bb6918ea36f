package container

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// oomKills counts the processes of a cgroup that the kernel killed for want of
// memory, 0 if that cannot be told.
//
// Source: kernel, cgroup-v2.rst, memory.events; cgroup-v1/memory.rst,
// memory.oom_control.
func oomKills(path string) int {
	f, err := os.Open(filepath.Join(cgroupRoot, path, "memory.events"))
	if err != nil {
		f, err = os.Open(filepath.Join(cgroupRoot, "memory", path, "memory.oom_control"))
	}
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

// judge tells a kill for want of memory from others. The cgroup lives as long
// as the task or longer, and the kernel counts in it.
func (r *record) judge() {
	r.Exit.OOMKilled = r.Exit.Code == 128+int(syscall.SIGKILL) && oomKills(r.CgroupPath) > r.OOMKills
}
