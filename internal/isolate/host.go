package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/hardware"
)

// host is what was found at Open.
type host struct {
	root    string
	cgroups string // mount of the cgroup v2 hierarchy; "" where it is not usable
	gaps    []Gap
}

func (h *host) file(parts ...string) string {
	return filepath.Join(append([]string{h.root}, parts...)...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// inspect finds the host's hierarchy and other managers on it.
func inspect(root string) (host, error) {
	h := host{root: root}
	if _, err := os.Stat(h.file("proc", "self")); err != nil {
		return h, fmt.Errorf("isolation needs procfs: %w", err)
	}
	base := h.file("sys/fs/cgroup")
	switch {
	case exists(filepath.Join(base, "cgroup.controllers")):
		h.cgroups = base
	case exists(filepath.Join(base, "unified", "cgroup.controllers")):
		h.lost("a hybrid hierarchy: its controllers belong to cgroup version 1; boot with systemd.unified_cgroup_hierarchy=1")
	case exists(filepath.Join(base, "cpu")), exists(filepath.Join(base, "memory")):
		h.lost("cgroup version 1: boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 at /sys/fs/cgroup")
	default:
		h.lost("no cgroup hierarchy is mounted at " + base)
	}
	for _, m := range []struct{ name, dir string }{{"systemd", "init.scope"}, {"Docker", "docker"}, {"Kubernetes", "kubepods.slice"}, {"Podman", "machine.slice/libpod_parent"}} {
		if h.cgroups != "" && exists(filepath.Join(base, m.dir)) {
			h.gaps = append(h.gaps, Gap{"classes against everything on this machine",
				m.name + " also manages cgroups here: what it runs competes with all classes at its own weight"})
		}
	}
	return h, nil
}

// lost notes everything that only cgroup version 2 can hold.
func (h *host) lost(why string) {
	for _, guarantee := range []string{
		"batch yields within milliseconds (cpu.idle)",
		"real-time CPUs free of other work (cpuset.cpus.partition)",
		"memory of interactive work is spared by reclaim (memory.low, memory.min)",
		"memory of batch work and of the system is bounded (memory.high)",
		"disk time by class (io.weight)",
		"batch is held back before interactive work suffers (PSI, cgroup.freeze)",
	} {
		h.gaps = append(h.gaps, Gap{guarantee, why})
	}
}

// online is the set of CPUs that are online now.
func (h *host) online() hardware.Set {
	text, err := readFile(h.file("sys/devices/system/cpu/online"))
	if err != nil {
		return hardware.Set{}
	}
	set, err := hardware.ParseList(text)
	if err != nil {
		return hardware.Set{}
	}
	return set
}

// memoryTotal is the machine's memory in bytes, 0 if unknown.
func (h *host) memoryTotal() int64 {
	text, err := readFile(h.file("proc/meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// number reads a file that holds one number.
func (h *host) number(parts ...string) (int64, error) {
	return numberIn(h.file(parts...))
}

// bound is what may be reserved of CPUs: what the kernel lets real-time work have, less
// what its servers keep for ordinary and sched_ext tasks.
func (i *Isolator) bound(cpus hardware.Set) Bound {
	b := Bound{CPUs: cpus.Len(), PerCPU: unit}
	runtime, err1 := i.host.number("proc/sys/kernel/sched_rt_runtime_us")
	period, err2 := i.host.number("proc/sys/kernel/sched_rt_period_us")
	if err := errors.Join(err1, err2); err == nil && runtime >= 0 {
		b.PerCPU = ratio(time.Duration(runtime)*time.Microsecond, time.Duration(period)*time.Microsecond)
	}
	servers := []string{"fair_server"}
	if state, err := readFile(i.host.file("sys/kernel/sched_ext/state")); err == nil && state != "disabled" {
		servers = append(servers, "ext_server") // it takes its part only while there is such a scheduler
	}
	for _, server := range servers {
		for _, cpu := range cpus.IDs() {
			b.Taken += i.serverTakes(server, cpu)
		}
	}
	return b
}

// serverTakes is what a kernel's server has of a CPU. Where debugfs is not
// mounted, the kernel's default of a twentieth is assumed.
func (i *Isolator) serverTakes(server string, cpu int) int64 {
	dir := filepath.Join("sys/kernel/debug/sched", server, "cpu"+strconv.Itoa(cpu))
	runtime, err1 := i.host.number(dir, "runtime")
	period, err2 := i.host.number(dir, "period")
	if err1 != nil || err2 != nil {
		return unit / 20
	}
	return ratio(time.Duration(runtime), time.Duration(period))
}
