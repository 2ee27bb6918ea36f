package isolate

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// legacy is a file of a cgroup of version 1, on a host that has no usable version 2:
// the container runtime has made the group.
func (i *Isolator) legacy(controller, group, file string) string {
	return i.host.file("sys/fs/cgroup", controller, group, file)
}

// legacyUsage reads what a group uses on a host without cgroup version 2. Pressure
// and throttling are not told there.
func (i *Isolator) legacyUsage(group string) (u Usage) {
	for _, controller := range []string{"cpuacct", "cpu,cpuacct"} {
		if n, err := numberIn(i.legacy(controller, group, "cpuacct.usage")); err == nil {
			u.CPUTime = time.Duration(n)
			break
		}
	}
	u.Memory, _ = numberIn(i.legacy("memory", group, "memory.usage_in_bytes")) // 0 where the controller is missing
	u.Processes, _ = numberIn(i.legacy("pids", group, "pids.current"))
	return u
}

// whyNotFIFO adds to the kernel's refusal of SCHED_FIFO what it comes from and what
// helps. Kernels with CONFIG_RT_GROUP_SCHED give new cgroups of version 1 no
// real-time: see the kernel's sched-rt-group.rst.
func (i *Isolator) whyNotFIFO(group string, err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	for at := group; i.host.cgroups == "" && at != "." && at != "/"; at = filepath.Dir(at) {
		for _, controller := range []string{"cpu", "cpu,cpuacct"} {
			file := i.legacy(controller, at, "cpu.rt_runtime_us")
			if n, e := numberIn(file); e == nil && n == 0 {
				return fmt.Errorf("%w: this kernel gives cgroups of version 1 no real-time (%s is 0): boot the host with systemd.unified_cgroup_hierarchy=1, or choose class interactive", err, file)
			}
		}
	}
	return fmt.Errorf("%w: start oscined as root with the capability CAP_SYS_NICE (see oscine doctor), or choose class interactive", err)
}
