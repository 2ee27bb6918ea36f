package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

func TestEveryProbeAnswers(t *testing.T) {
	all := append(Run(t.Context(), "/"), Tools(t.Context())...)
	names := map[string]bool{}
	for _, c := range all {
		t.Log(c)
		if names[c.Name] {
			t.Errorf("two capabilities are named %q", c.Name)
		}
		names[c.Name] = true
		if c.Detail == "" || c.NeededFor == "" || c.Available == (c.Remedy != "") {
			t.Errorf("incomplete answer: %+v", c)
		}
	}
}

// TestProbesLeaveNothing compares what a probe could leave behind.
func TestProbesLeaveNothing(t *testing.T) {
	// In namespaces of its own, where nobody else mounts or makes interfaces.
	const mark = "OSCINE_TEST_ALONE"
	if os.Geteuid() == 0 && os.Getenv(mark) == "" {
		alone := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
		alone.Env = append(os.Environ(), mark+"=1")
		alone.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
		if out, err := alone.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dirs := []string{"/var/lib", "/var/tmp", os.TempDir()}
	if os.Getenv(mark) != "" {
		for _, dir := range dirs { // where others probe too
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	snapshot := func() map[string]bool {
		found := map[string]bool{}
		for _, path := range []string{"/proc/self/mounts", "/proc/net/dev"} {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				name, _, _ := strings.Cut(line, ":") // the counters behind it change
				found[name] = true
			}
		}
		for _, dir := range dirs {
			left, err := filepath.Glob(dir + "/.oscine-probe-*")
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range left {
				found[file] = true
			}
		}
		namespaces, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range namespaces {
			if target, err := os.Readlink(l); err == nil {
				found[target] = true
			}
		}
		return found
	}
	before := snapshot()
	Run(t.Context(), "/")
	for thing := range snapshot() { // a mount that we took along goes when others remove its folder
		if !before[thing] {
			t.Errorf("left behind: %s", thing)
		}
	}
}

// fake is a machine made of files.
func fake(t *testing.T, files map[string]string) *prober {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &prober{t.Context(), root}
}

func TestFileProbes(t *testing.T) {
	const (
		unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
		hybrid  = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
	)
	for _, c := range []struct {
		name  string
		try   func(*prober) (string, error)
		files map[string]string
		want  string // of the detail or, after "no: ", the error
	}{
		{"unified", cgroupVersion, map[string]string{"proc/self/mounts": unified}, "at /sys/fs/cgroup"},
		{"hybrid", cgroupVersion, map[string]string{"proc/self/mounts": hybrid}, "no: hybrid: version 2 at /sys/fs/cgroup/unified, but version 1 holds cpu blkio"},
		{"nothing", cgroupVersion, map[string]string{"proc/self/mounts": "garbage\n"}, "no: no cgroup hierarchy is mounted"},
		{"all controllers", cgroupControllers, map[string]string{"proc/self/mounts": unified, "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"}, "cpu cpuset io memory pids"},
		{"split controllers", cgroupControllers, map[string]string{"proc/self/mounts": hybrid, "sys/fs/cgroup/unified/cgroup.controllers": "pids"}, "no: missing: cpuset memory; version 1 only: cpu io"},
		{"partitions", cpusetPartitions, map[string]string{"proc/self/mounts": unified, "sys/fs/cgroup/cgroup.controllers": "cpuset", "sys/fs/cgroup/cpuset.cpus.isolated": ""}, "isolated and root partitions"},
		{"no partitions", cpusetPartitions, map[string]string{"proc/self/mounts": unified, "sys/fs/cgroup/cgroup.controllers": "cpuset"}, "no: no cpuset.cpus.isolated"},
		{"huge pages always", hugePages, map[string]string{"sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n"}, "no: mode is always"},
		{"huge pages on request", hugePages, map[string]string{"sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n"}, "mode is madvise"},
		{"real time", preemptRT, map[string]string{"sys/kernel/realtime": "1\n"}, "the kernel is fully preemptible"},
		{"not real time", preemptRT, map[string]string{"proc/version": "Linux version 7.2 #1 SMP PREEMPT_DYNAMIC"}, "no: not in this kernel"},
		{"TPM 1.2", tpm, map[string]string{"sys/class/tpm/tpm0/tpm_version_major": "1"}, "no: version 1"},
		{"TPM 2.0", tpm, map[string]string{"sys/class/tpm/tpm0/tpm_version_major": "2", "dev/tpmrm0": ""}, "/dev/tpmrm0"},
		{"watchdog", watchdog, map[string]string{"dev/watchdog0": "", "sys/class/watchdog/watchdog0/identity": "i6300ESB timer\n"}, "i6300ESB timer"},
		{"sched_ext", schedExt, map[string]string{"sys/kernel/sched_ext/state": "disabled\n"}, "state disabled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.try(fake(t, c.files))
			if err != nil {
				got = "no: " + err.Error()
			}
			if !strings.HasPrefix(got, c.want) || (err == nil) != !strings.HasPrefix(c.want, "no: ") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestForwardingSeesOtherFirewalls makes the chain that Docker makes.
func TestForwardingSeesOtherFirewalls(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("writes firewall rules in a namespace: needs root")
	}
	try := func(policy nftables.ChainPolicy) error {
		_, err := inNetworkNamespace(func() (string, error) {
			conn, err := nftables.New()
			if err != nil {
				return "", err
			}
			table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
			conn.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy})
			if err := conn.Flush(); err != nil {
				return "", err
			}
			return forwarding(nil)
		})
		return err
	}
	if err := try(nftables.ChainPolicyDrop); err == nil || !strings.Contains(err.Error(), "FORWARD") {
		t.Errorf("with policy drop: got %v, want the chain named", err)
	}
	if err := try(nftables.ChainPolicyAccept); err != nil {
		t.Errorf("with policy accept: %v", err)
	}
}

func TestFakeRootIsNotTriedAlive(t *testing.T) {
	for _, c := range Run(t.Context(), t.TempDir()) {
		if c.Name == "user namespaces" || c.Name == "nf_tables" {
			t.Errorf("%s was tried on the running kernel for a fake root", c.Name)
		}
	}
}
