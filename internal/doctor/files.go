package doctor

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// controllers are those that classes and limits need.
func controllers() []string { return []string{"cpu", "cpuset", "io", "memory", "pids"} }

// cgroupMount finds the cgroup v2 tree and what else lies beside it.
func (p *prober) cgroupMount() (v2 string, v1 []string, err error) {
	mounts, err := p.read("proc/self/mounts")
	if err != nil {
		return "", nil, fmt.Errorf("read mounts: %w", err)
	}
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch f[2] {
		case "cgroup2":
			if v2 == "" || f[1] == "/sys/fs/cgroup" {
				v2 = f[1]
			}
		case "cgroup":
			v1 = append(v1, filepath.Base(f[1]))
		}
	}
	return v2, v1, nil
}

func cgroupVersion(p *prober) (string, error) {
	v2, v1, err := p.cgroupMount()
	switch {
	case err != nil:
		return "", err
	case v2 == "" && len(v1) == 0:
		return "", errors.New("no cgroup hierarchy is mounted")
	case v2 == "":
		return "", fmt.Errorf("version 1 only: %s", strings.Join(v1, " "))
	case len(v1) > 0:
		return "", fmt.Errorf("hybrid: version 2 at %s, but version 1 holds %s", v2, strings.Join(v1, " "))
	}
	return "at " + v2, nil
}

func cgroupControllers(p *prober) (string, error) {
	v2, v1, err := p.cgroupMount()
	if err != nil {
		return "", err
	}
	var present []string
	if v2 != "" {
		text, err := p.read(filepath.Join(v2, "cgroup.controllers"))
		if err != nil {
			return "", fmt.Errorf("read controllers: %w", err)
		}
		present = strings.Fields(text)
	}
	var missing, old []string
	for _, c := range controllers() {
		inV1 := slices.Contains(v1, c) || (c == "io" && slices.Contains(v1, "blkio"))
		switch {
		case slices.Contains(present, c):
		case inV1:
			old = append(old, c)
		default:
			missing = append(missing, c)
		}
	}
	if len(missing)+len(old) > 0 {
		return "", errors.New(strings.Trim(list("missing: ", missing)+"; "+list("version 1 only: ", old), "; "))
	}
	return strings.Join(controllers(), " "), nil
}

func list(before string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return before + strings.Join(names, " ")
}

func cpusetPartitions(p *prober) (string, error) {
	v2, _, err := p.cgroupMount()
	if err != nil {
		return "", err
	}
	text, err := p.read(filepath.Join(v2, "cgroup.controllers"))
	if v2 == "" || err != nil || !slices.Contains(strings.Fields(text), "cpuset") {
		return "", errors.New("the cpuset controller is not in cgroup version 2")
	}
	// Linux 6.7 (exclusive CPUs for remote partitions) brought this file along.
	if p.exists(filepath.Join(v2, "cpuset.cpus.isolated")) {
		return "isolated and root partitions", nil
	}
	return "", errors.New("no cpuset.cpus.isolated in the root cgroup: this kernel isolates no cores at run time")
}

func pressure(p *prober) (string, error) {
	if _, err := p.read("proc/pressure/cpu"); err != nil {
		return "", fmt.Errorf("read /proc/pressure/cpu: %w", err)
	}
	return "cpu, io and memory", nil
}

func hugePages(p *prober) (string, error) {
	text, err := p.read("sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil {
		return "none: nothing can stall", nil
	}
	_, rest, _ := strings.Cut(text, "[")
	mode, _, _ := strings.Cut(rest, "]")
	if mode == "always" {
		return "", errors.New("mode is always")
	}
	return "mode is " + mode, nil
}

func preemptRT(p *prober) (string, error) {
	if text, err := p.read("sys/kernel/realtime"); err == nil && text == "1" {
		return "the kernel is fully preemptible", nil
	}
	version, err := p.read("proc/version")
	if err != nil {
		return "", err
	}
	if strings.Contains(version, "PREEMPT_RT") {
		return "the kernel is fully preemptible", nil
	}
	return "", errors.New("not in this kernel")
}

func schedExt(p *prober) (string, error) {
	state, err := p.read("sys/kernel/sched_ext/state")
	if err != nil {
		return "", errors.New("not in this kernel")
	}
	return "state " + state, nil
}

func btf(p *prober) (string, error) {
	if !p.exists("sys/kernel/btf/vmlinux") {
		return "", errors.New("no /sys/kernel/btf/vmlinux")
	}
	return "/sys/kernel/btf/vmlinux", nil
}

func seccomp(p *prober) (string, error) {
	actions, err := p.read("proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return "", errors.New("not in this kernel")
	}
	return actions, nil
}

func tpm(p *prober) (string, error) {
	version, err := p.read("sys/class/tpm/tpm0/tpm_version_major")
	switch {
	case err != nil:
		return "", errors.New("this machine has none, or no driver for it")
	case version != "2":
		return "", fmt.Errorf("version %s", version)
	case !p.exists("dev/tpmrm0"):
		return "", errors.New("no /dev/tpmrm0")
	}
	return "/dev/tpmrm0", nil
}

func watchdog(p *prober) (string, error) {
	if !p.exists("dev/watchdog0") {
		return "", errors.New("no /dev/watchdog0")
	}
	if identity, err := p.read("sys/class/watchdog/watchdog0/identity"); err == nil && identity != "" {
		return identity, nil
	}
	return "/dev/watchdog0", nil
}
