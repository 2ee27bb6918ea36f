package boot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/release"
)

// setting is one file of procfs or sysfs and the value PID 1 gives it.
type setting struct{ file, value string }

// settings are what holds for every Oscine machine; what depends on workloads
// is internal/isolate's. A kernel without one of the files goes without.
func settings() []setting {
	return []setting{
		{"/proc/self/oom_score_adj", "-1000"},
		{"/proc/sys/kernel/printk_devkmsg", "on"}, // the default drops init's own lines
		{"/proc/sys/kernel/panic", "5"},
		{"/proc/sys/kernel/panic_on_oops", "1"},
		{"/proc/sys/kernel/hung_task_panic", "0"},
		{"/proc/sys/kernel/kptr_restrict", "1"},
		{"/proc/sys/kernel/dmesg_restrict", "1"},
		{"/proc/sys/kernel/kexec_load_disabled", "1"},
		{"/proc/sys/kernel/yama/ptrace_scope", "1"},
		{"/proc/sys/kernel/unprivileged_bpf_disabled", "1"},
		{"/proc/sys/fs/protected_hardlinks", "1"},
		{"/proc/sys/fs/protected_symlinks", "1"},
		{"/proc/sys/fs/protected_fifos", "2"},
		{"/proc/sys/fs/protected_regular", "2"},
		{"/proc/sys/fs/inotify/max_user_instances", "8192"},
		{"/proc/sys/vm/max_map_count", "1048576"}, // engines map models in many pieces
		{"/proc/sys/vm/panic_on_oom", "0"},
		// With "always", khugepaged stalled real-time workers for seconds.
		{"/sys/kernel/mm/transparent_hugepage/enabled", "madvise"},
	}
}

// setup brings the verified root to the state oscined expects. Nothing here is
// worth stopping for: each failure is logged and the boot goes on. It returns
// the modules, of which some are put off.
func setup(log *Log) *modules {
	began := time.Now()
	for _, err := range mountAll(runtimeMounts()) {
		log.Error("%v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		log.Error("share mounts with workloads: %v", err)
	}
	for _, s := range settings() {
		if err := os.WriteFile(s.file, []byte(s.value+"\n"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Error("set %s to %s: %v", s.file, s.value, err)
		}
	}
	mounted := time.Now()
	m := openModules(log)
	enableModprobe(log, "/usr/sbin/init") // not /sbin/init, whose every start the kernel remarks on
	m.later = lateModules()
	m.loadListed(log, release.ModulesFile)
	m.coldplug(log, "/sys")
	// Containers need it, the API does not: cheaper then than through the kernel.
	m.put = append(m.put, "overlay")
	if !exists(watchdogDevice) {
		// Without hardware a timer of the kernel still catches a hanging PID 1.
		if err := m.load("softdog", ""); err != nil {
			log.Error("%v", err)
		}
	}
	log.Notice("mounts in %d ms, modules in %d ms, %d are loaded", ms(began, mounted), ms(mounted, time.Now()), m.count())
	if err := copyEtc(); err != nil {
		log.Error("/etc stays read-only: %v", err)
	}
	if err := delegateControllers("/sys/fs/cgroup"); err != nil {
		log.Error("cgroups: %v", err)
	}
	for _, dir := range []string{"/run/oscine", "/run/lock", "/var/lib/oscine", "/var/log/oscine", "/var/tmp"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			log.Error("%v", err)
		}
	}
	makeNodes(log)
	if err := unix.Sethostname([]byte("oscine")); err != nil {
		log.Error("host name: %v", err)
	}
	return m
}

// makeNodes adds to devtmpfs the links every program expects, and the nodes
// whose opening makes the kernel load their driver (modules.devname of kmod).
func makeNodes(log *Log) {
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, os.ErrExist) {
			log.Error("%v", err)
		}
	}
	for name, number := range map[string]uint64{
		"/dev/net/tun": unix.Mkdev(10, 200), "/dev/loop-control": unix.Mkdev(10, 237), "/dev/fuse": unix.Mkdev(10, 229),
		"/dev/vhost-net": unix.Mkdev(10, 238), "/dev/vhost-vsock": unix.Mkdev(10, 241),
	} {
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if err == nil {
			err = unix.Mknod(name, unix.S_IFCHR|0o600, int(number))
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			log.Error("make %s: %v", name, err)
		}
	}
}

// copyEtc makes /etc writable in memory: what programs expect to find there is derived
// from the configuration at every boot. A copy takes 230 KB of memory; an overlay would
// have every boot wait for the signature of its module.
func copyEtc() error {
	const copied = "/run/oscine/etc"
	if isMountPoint("/etc") {
		return nil
	}
	if err := os.RemoveAll(copied); err != nil {
		return err
	}
	if err := os.CopyFS(copied, os.DirFS("/etc")); err != nil {
		return err
	}
	return mount{copied, "/etc", "", unix.MS_BIND, ""}.do() // nosuid and nodev, as /run is
}

// delegateControllers gives every controller of the root cgroup to its children.
func delegateControllers(root string) error {
	raw, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range strings.Fields(string(raw)) {
		failed = append(failed, os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+name), 0o644))
	}
	return errors.Join(failed...)
}
