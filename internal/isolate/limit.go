package isolate

import (
	"path/filepath"
	"strconv"
	"strings"
)

// MemoryLimit returns how much memory the calling process and what it starts
// may use: the least that its cgroups and the machine below root allow. It is 0
// where that cannot be read.
func MemoryLimit(root string) int64 {
	h := host{root: root}
	limit := h.memoryTotal()
	text, err := readFile(h.file("proc/self/cgroup"))
	if err != nil {
		return limit
	}
	for line := range strings.Lines(text) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/") // of version 2
		if !ok {
			continue
		}
		for ; group != "." && group != ""; group = filepath.Dir(group) {
			for _, file := range []string{"memory.max", "memory.high"} {
				text, err := readFile(h.file("sys/fs/cgroup", group, file))
				if err != nil {
					continue
				}
				if n, err := strconv.ParseInt(text, 10, 64); err == nil && (limit == 0 || n < limit) { // or it is "max"
					limit = n
				}
			}
		}
	}
	return limit
}
