package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
)

// usedCapabilities are those that oscined needs, with their bits.
func usedCapabilities() map[string]int {
	return map[string]int{
		"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_SYS_NICE": unix.CAP_SYS_NICE,
		"CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "CAP_IPC_LOCK": unix.CAP_IPC_LOCK, "CAP_MKNOD": unix.CAP_MKNOD,
		"CAP_SETUID": unix.CAP_SETUID, "CAP_CHOWN": unix.CAP_CHOWN, "CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE,
	}
}

func capabilities(*prober) (string, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return "", fmt.Errorf("read capabilities: %w", err)
	}
	var missing []string
	for name, bit := range usedCapabilities() {
		if data[bit/32].Effective&(1<<(bit%32)) == 0 {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	switch {
	case os.Geteuid() != 0:
		return "", fmt.Errorf("runs as user %d", os.Geteuid())
	case len(missing) > 0:
		return "", errors.New("without " + strings.Join(missing, ", "))
	}
	return "root with all that is needed", nil
}

// withUserNamespace runs f with an open user namespace in which root is user
// 100000. Its process is this program, stopped before its first instruction.
func withUserNamespace(f func(namespace *os.File) (string, error)) (string, error) {
	return onOwnThread(func() (string, error) {
		ids := []sysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		if os.Geteuid() != 0 {
			ids = []sysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		}
		process, err := startStopped(ids)
		if err != nil {
			return "", fmt.Errorf("make a user namespace: %w", err)
		}
		defer endStopped(process)
		namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", process.Pid))
		if err != nil {
			return "", err
		}
		defer namespace.Close()
		return f(namespace)
	})
}

func userNamespaces(*prober) (string, error) {
	return withUserNamespace(func(*os.File) (string, error) { return "with 65536 mapped ids", nil })
}

func idMappedMounts(*prober) (string, error) {
	dir := "/var/lib"
	return withUserNamespace(func(namespace *os.File) (string, error) {
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return "", fmt.Errorf("clone the mount of %s: %w", dir, err)
		}
		defer unix.Close(fd)
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return "", fmt.Errorf("map the ids of %s: %w", dir, err)
		}
		return "on the file system of " + dir, nil
	})
}

// inMountNamespace runs f with a fresh tmpfs that only it sees.
func inMountNamespace(f func(dir string) (string, error)) (string, error) {
	return onOwnThread(func() (string, error) {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return "", fmt.Errorf("make a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return "", fmt.Errorf("make mounts private: %w", err)
		}
		dir := os.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			return "", fmt.Errorf("mount tmpfs: %w", err)
		}
		return f(dir)
	})
}

func overlay(*prober) (string, error) {
	return inMountNamespace(func(dir string) (string, error) {
		for _, name := range []string{"lower", "upper", "work", "merged"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				return "", err
			}
		}
		options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
		if err := unix.Mount("overlay", filepath.Join(dir, "merged"), "overlay", 0, options); err != nil {
			return "", fmt.Errorf("mount: %w", err)
		}
		return "mounted one", nil
	})
}

// erofs offers the kernel a file that is no erofs. One that knows the file
// system complains of its content; one that takes only block devices, of that.
// The file lies where packs do, because tmpfs cannot back a mount.
func erofs(p *prober) (string, error) {
	file, err := scratchFile("/var/lib/oscine", "/var/lib", "/var/tmp")
	if err != nil {
		return "", err
	}
	defer os.Remove(file)
	return inMountNamespace(func(dir string) (string, error) {
		err := unix.Mount(file, dir, "erofs", unix.MS_RDONLY, "")
		switch {
		case errors.Is(err, unix.EINVAL):
			return "without a loop device", nil
		case errors.Is(err, unix.ENOTBLK) && p.exists("dev/loop-control"):
			return "through a loop device", nil
		case errors.Is(err, unix.ENODEV):
			return "", errors.New("erofs is not in this kernel")
		case err == nil:
			return "", errors.New("the kernel mounted a file of zeros")
		}
		return "", fmt.Errorf("mount: %w", err)
	})
}

// scratchFile makes a file of zeros in the first folder that takes one.
func scratchFile(dirs ...string) (string, error) {
	var first error
	for _, dir := range dirs {
		f, err := os.CreateTemp(dir, ".oscine-probe-")
		if err == nil {
			return f.Name(), errors.Join(f.Truncate(8192), f.Close())
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

func dmVerity(p *prober) (string, error) {
	targets, err := linux.MappingTargets()
	if err == nil && slices.Contains(targets, "verity") {
		return "ready", nil
	}
	var release unix.Utsname
	if unix.Uname(&release) == nil {
		dir := filepath.Join(p.root, "lib/modules", unix.ByteSliceToString(release.Release[:]))
		if found, globErr := filepath.Glob(dir + "/kernel/drivers/md/dm-verity.ko*"); globErr == nil && len(found) > 0 {
			return "a module that loads on demand", nil
		}
	}
	if err != nil {
		return "", err
	}
	return "", fmt.Errorf("the device mapper has only %s", strings.Join(targets, " "))
}

func landlock(*prober) (string, error) {
	version, err := linux.LandlockABI()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("interface version %d", version), nil
}

func fifo(p *prober) (string, error) {
	return onOwnThread(func() (string, error) {
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
			return "", fmt.Errorf("take priority 1: %w", err)
		}
		// Kernels with CONFIG_RT_GROUP_SCHED have this file, and give new groups none of it.
		if _, err := p.read("sys/fs/cgroup/cpu/cpu.rt_runtime_us"); err == nil {
			return "", errors.New("this kernel gives new cgroups of version 1 no real-time (cpu.rt_runtime_us)")
		}
		return "priorities 1 to 99", nil
	})
}

func deadline(*prober) (string, error) {
	return onOwnThread(func() (string, error) {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_DEADLINE, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
			Runtime: 1e6, Deadline: 100e6, Period: 100e6} // ns: 1 % of one CPU
		if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
			return "", fmt.Errorf("reserve 1 ms of every 100 ms: %w", err)
		}
		return "reserved 1 ms of every 100 ms", nil
	})
}

func wakeLatency(*prober) (string, error) {
	f, err := os.OpenFile("/dev/cpu_dma_latency", os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	return "/dev/cpu_dma_latency", f.Close()
}

func lockedMemory(*prober) (string, error) {
	const wanted = 16 << 20
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return "", fmt.Errorf("read the limit: %w", err)
	}
	area, err := unix.Mmap(-1, 0, wanted, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return "", fmt.Errorf("map memory: %w", err)
	}
	lockErr := unix.Mlock(area)
	if err := unix.Munmap(area); err != nil {
		return "", err
	}
	if lockErr != nil {
		return "", fmt.Errorf("lock 16 MiB: %w (limit %d KiB)", lockErr, limit.Cur>>10)
	}
	return "locked 16 MiB", nil
}

func clockSync(*prober) (string, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return "", fmt.Errorf("ask the kernel: %w", err)
	}
	const timeError, unsynchronised = 5, 0x40 // TIME_ERROR and STA_UNSYNC of adjtimex(2)
	if state == timeError || t.Status&unsynchronised != 0 {
		return "", errors.New("no time service has set the clock since boot")
	}
	return fmt.Sprintf("within %d ms", max(t.Maxerror/1000, 1)), nil
}

func architecture() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}
