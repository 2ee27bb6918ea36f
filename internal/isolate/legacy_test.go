package isolate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A host with cgroups of version 1 tells what a workload uses, and why it has no
// real-time.
func TestCgroupsOfVersionOne(t *testing.T) {
	root := tree(t, "sys/fs/cgroup/cpu/tasks")
	i, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Prepare(Spec{ID: "w", Class: Interactive}); err != nil {
		t.Fatal(err)
	}
	group := CgroupPath(Interactive, "w")
	for file, text := range map[string]string{
		"cpuacct/" + group + "/cpuacct.usage": "1500000000\n", "memory/" + group + "/memory.usage_in_bytes": "4096\n", "pids/" + group + "/pids.current": "3\n",
		"cpu/" + group + "/cpu.rt_runtime_us": "0\n",
	} {
		path := filepath.Join(root, "sys/fs/cgroup", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := i.Usage("w", nil); err != nil || u.CPUTime != 1500*time.Millisecond || u.Memory != 4096 || u.Processes != 3 {
		t.Errorf("got %+v, %v", u, err)
	}
	if st, err := i.Status("w"); err != nil || time.Duration(st.CPUTime) != 1500*time.Millisecond {
		t.Errorf("got %+v, %v", st, err)
	}
	if err := i.whyNotFIFO(group, unix.EPERM); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "cpu.rt_runtime_us is 0): boot the host with systemd.unified_cgroup_hierarchy=1, or choose class interactive") {
		t.Errorf("got %v", err)
	}
	if err := i.whyNotFIFO("other", unix.EPERM); !strings.Contains(err.Error(), "CAP_SYS_NICE") {
		t.Errorf("got %v", err)
	}
	if err := i.whyNotFIFO(group, unix.ESRCH); !errors.Is(err, unix.ESRCH) || strings.Contains(err.Error(), "boot") {
		t.Errorf("got %v", err)
	}
}
