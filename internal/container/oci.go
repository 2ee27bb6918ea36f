package container

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// plan is everything that a runtime specification is made from.
type plan struct {
	spec    Spec
	image   ocispec.ImageConfig // zero without an image
	user    user
	uidBase uint32 // 0 without user namespace
	etc     string // folder of the files of writeEtc
	host    host
	cdiDirs []string
	holder  string // the program that waits for Spec.Hold
}

// ociSpec is the runtime specification: Oscine's defaults, loosened by what
// Spec.Security says and by nothing else.
func (p plan) ociSpec() (*specs.Spec, error) {
	args, err := p.args()
	if err != nil {
		return nil, err
	}
	mounts, err := p.mounts()
	if err != nil {
		return nil, err
	}
	if err := p.checkCapabilities(); err != nil {
		return nil, err
	}
	capabilities := p.capabilities()
	score := p.oomScore()
	s := &specs.Spec{
		Version:  specs.Version,
		Hostname: p.spec.Hostname,
		Root:     &specs.Root{Path: "rootfs", Readonly: !p.spec.Security.WritableRoot},
		Mounts:   mounts,
		Process: &specs.Process{
			Args:            args,
			Env:             mergeEnv([]string{defaultPath, "HOSTNAME=" + p.spec.Hostname}, p.image.Env, p.spec.Env),
			Cwd:             firstOf(p.spec.Cwd, p.image.WorkingDir, "/"),
			User:            specs.User{UID: p.user.UID, GID: p.user.GID, AdditionalGids: p.user.Groups},
			NoNewPrivileges: true,
			OOMScoreAdj:     &score,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
				// Without these two a program that is not root would get none.
				Inheritable: capabilities, Ambient: capabilities,
			},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: min(p.host.files, 65536), Hard: p.host.files}},
		},
		Linux: &specs.Linux{
			CgroupsPath:       p.spec.CgroupPath,
			Resources:         p.spec.Limits.resources(),
			Namespaces:        p.namespaces(),
			RootfsPropagation: "private",
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
				"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/debug", "/sys/kernel/tracing",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if p.uidBase != 0 {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: p.uidBase, Size: uidsEach}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	}
	if !p.host.cgroup2 && p.spec.NetNS != "" && p.uidBase != 0 {
		// The node's /sys is visible then, with its cgroup v1 hierarchies.
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/sys/fs/cgroup")
	}
	if p.spec.NetNS == "" {
		// The network namespace is the container's own: low ports need no privilege.
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	}
	if p.spec.Hold {
		if err := hold(s); err != nil {
			return nil, err
		}
	}
	s.Linux.Seccomp = seccomp.DefaultProfile(s)
	return s, injectDevices(s, p.spec.Devices, p.cdiDirs)
}

// args is the command line: entrypoint and arguments, each Spec's or the
// image's. An entrypoint of Spec drops the image's command, as everywhere.
func (p plan) args() ([]string, error) {
	entrypoint, command := p.image.Entrypoint, p.image.Cmd
	if len(p.spec.Entrypoint) > 0 {
		entrypoint, command = p.spec.Entrypoint, nil
	}
	if len(p.spec.Args) > 0 {
		command = p.spec.Args
	}
	args := append(append([]string{}, entrypoint...), command...)
	if len(args) == 0 || args[0] == "" {
		return nil, fmt.Errorf("container %s: nothing to run: the image names no entrypoint or command; give one", p.spec.ID)
	}
	return args, nil
}

// mergeEnv joins environments, the later value of a name taking the place of
// the earlier.
func mergeEnv(lists ...[]string) []string {
	var env []string
	at := map[string]int{}
	for _, list := range lists {
		for _, entry := range list {
			name, _, _ := strings.Cut(entry, "=")
			if i, ok := at[name]; ok {
				env[i] = entry
				continue
			}
			at[name] = len(env)
			env = append(env, entry)
		}
	}
	return env
}

// reachesHost are the capabilities that the kernel bounds to a user namespace.
// In a container that has none they hold for the whole node: one of them opens
// files of the host by their number.
var reachesHost = [...]string{"AUDIT_CONTROL", "AUDIT_READ", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH", "LINUX_IMMUTABLE", "MAC_ADMIN",
	"MAC_OVERRIDE", "MKNOD", "PERFMON", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"}

// checkCapabilities returns ErrDenied for a capability that would reach the
// host.
func (p plan) checkCapabilities() error {
	if p.uidBase != 0 {
		return nil
	}
	for _, name := range p.spec.Security.AddCapabilities {
		if slices.Contains(reachesHost[:], name) {
			return fmt.Errorf("container %s: capability %s %w: this node has no user namespaces for containers, so it would hold for the whole node (see oscine info, missing guarantees)", p.spec.ID, name, ErrDenied)
		}
	}
	return nil
}

func (p plan) capabilities() []string {
	capabilities := []string{} // not nil: none, rather than the runtime's default
	for _, name := range p.spec.Security.AddCapabilities {
		capabilities = append(capabilities, "CAP_"+name)
	}
	return capabilities
}

func (p plan) oomScore() int {
	if p.host.lowerOOM {
		return p.spec.OOMScore
	}
	return max(p.spec.OOMScore, ownOOMScore())
}

func (p plan) namespaces() []specs.LinuxNamespace {
	namespaces := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
		{Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
	}
	if p.uidBase != 0 {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	switch p.spec.NetNS {
	case hostNetwork:
	default:
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: p.spec.NetNS})
	}
	return namespaces
}

// cpuPeriod is the kernel's default for CPU quotas, in microseconds.
const cpuPeriod = 100_000

func (l Limits) resources() *specs.LinuxResources {
	r := &specs.LinuxResources{
		// Nothing but /dev/null and its like, which runtimes add themselves.
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		CPU:     &specs.LinuxCPU{Cpus: l.CPUs, Mems: l.MemoryNodes},
	}
	if l.MilliCPU > 0 {
		// The kernel takes a quota of a millisecond and more.
		quota, period := max(l.MilliCPU*cpuPeriod/1000, 1000), uint64(cpuPeriod)
		r.CPU.Quota, r.CPU.Period = &quota, &period
	}
	if l.MemoryBytes > 0 {
		// Equal limits of memory, and of memory and swap: no swap.
		r.Memory = &specs.LinuxMemory{Limit: &l.MemoryBytes, Swap: &l.MemoryBytes}
	}
	if l.PIDs > 0 {
		r.Pids = &specs.LinuxPids{Limit: &l.PIDs}
	}
	return r
}

func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// cleanInside makes a path in a container absolute and free of dots.
func cleanInside(p string) string { return path.Join("/", p) }
